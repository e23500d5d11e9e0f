import re
import shutil

import pandas as pd
from ruamel.yaml import YAML

from regraft.backbones.catalogue import choose_backbone
from regraft.files import read_json, sha256_of
from regraft.intervals import Interval
from regraft.training import fine_tune as module
from regraft.training.keep_test import KeepTest
from regraft.training.network_file import read_head, read_network
from tasks.evaluate import evaluate
from tasks.export_onnx import export_onnx
from tasks.fine_tune import fine_tune
from tests.stress.training_kills import prove
from tests.support.pipeline import ROOT
from tests.support.small_project import changed, quiet


def test_the_same_inputs_give_the_same_bytes_even_with_an_empty_store(project, small_params):
    before = sha256_of(project / "models" / "model.npz")
    shutil.rmtree(project / "build" / "store")
    fine_tune.function(small_params, quiet)
    assert sha256_of(project / "models" / "model.npz") == before


def test_switched_off_it_gives_the_backbone_and_the_head_as_they_were(project, small_params):
    fine_tune.function(changed(small_params, fine_tune={"mode": "off"}), quiet)
    network, head = read_network(project / "models" / "model.npz"), read_head(project / "models" / "head.npz")
    assert (network.trained, network.weights) == ("head", {})
    assert all((new == old).all() for new, old in zip(network.head.weights, head.weights, strict=True))
    report = read_json(project / "reports" / "fine_tune.json")
    assert (report["mode"], report["is_used"], report["trained"]) == ("off", False, "head")


def test_layers_below_the_cut_and_batch_norm_stay_as_they_were(project, small_params):
    network = read_network(project / "models" / "model.npz")
    backbone = choose_backbone(small_params.backbone)
    names = [layer.name for layer in backbone.build().layers]
    trained = {path.split("/")[0] for path in network.weights}
    assert network.trained == "top"
    assert trained <= {name for name in names[names.index(backbone.cut) + 1 :] if not name.endswith("_bn")}
    assert "top_conv" in trained


def test_it_is_used_only_if_the_test_on_val_speaks_for_it(project, small_params):
    report = read_json(project / "reports" / "fine_tune.json")
    test = report["test"]
    speaks_for_it = test["p"] <= small_params.fine_tune.significance and test["loss_change"]["low"] <= 0
    assert report["is_used"] == speaks_for_it


def test_it_says_on_the_terminal_what_the_report_says(project, small_params, capsys):
    fine_tune.function(changed(small_params, fine_tune={"mode": "auto", "max_minutes": 1e-6}), quiet)
    reason = read_json(project / "reports" / "fine_tune.json")["reason"]
    assert re.match("Not fine-tuned: .*fine_tune.max_minutes is 1e-06", reason)
    assert f"fine_tune: {reason}" in capsys.readouterr().out
    assert pd.read_csv(project / "reports" / "fine_tune_curve.csv").empty


def test_with_all_layers_trained_that_network_is_what_ships(project, small_params, monkeypatch):
    params = changed(small_params, fine_tune={"layers": "all", "epochs": 1})
    certain = KeepTest("accuracy", 0, 9, p=0.002, loss_change=Interval(-0.2, -0.3, -0.1))
    monkeypatch.setattr(module, "keep_test", lambda *_: certain)  # on 14 val photos that is a matter of chance
    shutil.rmtree(project / "build" / "store")
    fine_tune.function(params, quiet)
    report = read_json(project / "reports" / "fine_tune.json")
    assert (report["is_used"], report["trained"]) == (True, "all")
    # Its parity with the Keras model is checked from the raw photos; the frozen graph would differ.
    export_onnx.function(params, quiet)
    assert read_json(project / "reports" / "export.json")["trained"] == "all"
    evaluate.function(params, quiet)


def test_after_a_kill_at_a_random_moment_the_next_run_ends_in_the_same_bytes(project, small_params):
    params = changed(small_params, fine_tune={"epochs": 4})
    with (project / "params.yaml").open("w") as file:
        YAML().dump(params.model_dump(mode="json"), file)
    shutil.copy(ROOT / "dvc.yaml", project)
    (project / ".dvc").mkdir()  # where stages keep their locks
    tally = prove("fine_tune", project, kills=1, seed=1)
    assert (tally.kills, tally.problems) == (1, [])
    assert tally.kills_with_a_checkpoint > 0  # the seed is one whose kill waits for a checkpoint
