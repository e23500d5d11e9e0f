import shutil

from small_project import changed, quiet

from regraft.backbones import choose_backbone
from regraft.files import read_json, sha256_of
from regraft.finetune import join
from regraft.networks import load_model, start_keras
from tasks.fine_tune import fine_tune


def test_the_same_inputs_give_the_same_bytes_even_with_an_empty_store(project, small_params):
    before = sha256_of(project / "models" / "model.keras")
    shutil.rmtree(project / "build" / "store")
    fine_tune.function(small_params, quiet)
    assert sha256_of(project / "models" / "model.keras") == before


def test_switched_off_it_gives_the_backbone_and_the_head_as_they_were(project, small_params):
    fine_tune.function(changed(small_params, fine_tune={"mode": "off"}), quiet)
    start_keras(small_params.seed)
    expected = join(choose_backbone(small_params.backbone), load_model(project / "models" / "head.keras"))
    weights = load_model(project / "models" / "model.keras").get_weights()
    assert all((new == old).all() for new, old in zip(weights, expected.get_weights(), strict=True))
    assert read_json(project / "reports" / "fine_tune.json") == {"is_kept": False}


def test_layers_below_the_cut_and_batch_norm_stay_as_they_were(project, small_params):
    start_keras(small_params.seed)
    backbone = choose_backbone(small_params.backbone)
    before = join(backbone, load_model(project / "models" / "head.keras"))
    after = load_model(project / "models" / "model.keras")
    names = [layer.name for layer in before.layers]
    below = names[: names.index(backbone.cut) + 1]
    frozen = [*below, *(name for name in names if name.endswith("_bn"))]
    for name in frozen:
        pairs = zip(after.get_layer(name).get_weights(), before.get_layer(name).get_weights(), strict=True)
        assert all((new == old).all() for new, old in pairs)


def test_it_is_used_only_if_it_is_better_on_val(project):
    report = read_json(project / "reports" / "fine_tune.json")
    new, old = report["val"], report["head_alone"]
    better = (new["accuracy"], -new["log_loss"]) > (old["accuracy"], -old["log_loss"])
    assert report["is_kept"] == better
