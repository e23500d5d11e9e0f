from regraft.core.files import read_json, sha256_of
from regraft.training.network_file import read_head
from tasks.train_head import train_head
from tests.support.small_project import changed, quiet


def test_the_same_features_params_and_seed_give_the_same_bytes(project, small_params):
    before = sha256_of(project / "models" / "head.npz")
    train_head.function(small_params, quiet)
    assert sha256_of(project / "models" / "head.npz") == before


def test_another_seed_gives_another_head_with_a_hidden_layer(project, small_params):
    digests = set()
    for seed in (0, 1):
        drawn = changed(small_params, train_head={"kind": "mlp", "hidden_units": 7}).model_copy(update={"seed": seed})
        train_head.function(drawn, quiet)
        digests.add(sha256_of(project / "models" / "head.npz"))
    assert len(digests) == 2


def test_hidden_units_make_a_hidden_layer(project, small_params):
    train_head.function(changed(small_params, train_head={"kind": "mlp", "hidden_units": 7}), quiet)
    shapes = [weight.shape for weight in read_head(project / "models" / "head.npz").weights]
    assert shapes == [(1280, 7), (7,), (7, 3), (3,)]


def test_the_report_names_the_epoch_that_was_kept(project):
    report = read_json(project / "reports" / "head.json")
    assert 1 <= report["best_epoch"] <= report["epochs_run"]  # 0 would be a head of zeros
