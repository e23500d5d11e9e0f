import re
from pathlib import Path

import numpy as np
import pandas as pd

from regraft.core.files import read_json
from regraft.photos.base_record import read_base_record
from regraft.photos.dataset import read_dataset
from regraft.photos.sample import training_sample
from regraft.training.network_file import Head, Network, read_head, read_network, write_head, write_network
from tasks.cache_features import cache_features
from tasks.choose_base import choose_base
from tasks.evaluate import evaluate
from tasks.export_onnx import export_onnx
from tasks.fine_tune import fine_tune
from tasks.preprocess import preprocess
from tasks.stage_inputs import StageInputs
from tasks.train_base import train_base
from tasks.validate_data import validate_data
from tests.support.small_project import changed, empty_store, quiet, write_photos

MODEL, BASE, HEAD = Path("models", "model.npz"), Path("models", "base.npz"), Path("models", "head.npz")


def _report():
    return read_json(Path("reports", "fine_tune.json"))


def test_switched_off_it_gives_the_backbone_and_the_head_as_they_were(project, small_params):
    fine_tune.function(changed(small_params, fine_tune={"mode": "off"}), quiet)
    network, head = read_network(MODEL), read_head(HEAD)
    assert (network.trained, network.weights) == ("head", {})
    assert all((new == old).all() for new, old in zip(network.head.weights, head.weights, strict=True))
    assert (_report()["mode"], _report()["is_used"], _report()["trained"]) == ("off", False, "head")


def test_without_new_photos_nothing_is_trained_and_val_chooses_between_base_and_head(project):
    report = _report()
    known = r"The base, trained on \d\d photos, has seen every photo of train, so it is not trained further\. Shipped"
    assert re.match(known, report["reason"])
    losses = {tried["alpha"]: tried["log_loss"] for tried in report["tried"]}
    assert (report["val"]["log_loss"], report["head_alone"]["log_loss"]) == (losses[report["alpha"]], losses[0.0])
    assert pd.read_csv(Path("reports", "fine_tune_curve.csv")).empty
    if report["alpha"] == 1:
        weights, base = read_network(MODEL).weights, read_network(BASE).weights
        assert all((weights[path] == base[path]).all() for path in base)


def test_a_base_that_says_why_there_is_none_leaves_the_head_alone(project, small_params, capsys):
    network = read_network(BASE)
    write_network(BASE, Network("head", network.head, {}))
    (project / "reports" / "base_training.json").write_text('{"reason": "It takes too long."}')
    fine_tune.function(small_params, quiet)
    assert (_report()["reason"], _report()["trained"]) == ("It takes too long.", "head")
    assert "fine_tune: It takes too long." in capsys.readouterr().out


def test_a_head_of_another_shape_than_that_of_the_base_is_compared_with_it_whole(project, small_params):
    head = read_head(HEAD)
    hidden = np.zeros((head.feature_dim, 2), np.float32)
    settings = [hidden, np.zeros(2, np.float32), np.zeros((2, 3), np.float32), np.zeros(3, np.float32)]
    write_head(HEAD, Head(head.settings.__class__(2, "relu", "adamw", 0.0, 0.1, 0.0, 0.0), settings))
    fine_tune.function(small_params, quiet)
    assert [tried["alpha"] for tried in _report()["tried"]] == [0.0, 1.0]
    assert _report()["alpha"] == 1.0  # a head of zeros knows nothing


def test_with_all_layers_trained_that_network_is_what_ships(project, small_params):
    params = changed(small_params, fine_tune={"layers": "all", "epochs": 1})
    empty_store(project)
    for stage in (choose_base, train_base, fine_tune):
        stage.function(params, quiet)
    base = read_network(BASE)
    assert base.trained == "all"
    write_network(MODEL, base)  # what val chooses of 14 photos is a matter of chance
    # Its parity with the Keras model is checked from the raw photos; the frozen graph would differ.
    export_onnx.function(params, quiet)
    assert read_json(project / "reports" / "export.json")["trained"] == "all"
    evaluate.function(params, quiet)


def test_with_more_photos_than_may_be_fine_tuned_on_a_sample_is_and_no_other_has_activations(project, small_params):
    most = 45
    params = changed(small_params, fine_tune={"max_photos": most, "renew_after": 0.3})
    empty_store(project)
    (project / "build" / "base_photos.parquet").unlink()
    nights = []
    first, second = (cache_features, choose_base, train_base), (validate_data, preprocess, cache_features, choose_base)
    for stages in (first, (*second, fine_tune)):
        if nights:
            write_photos(project / "data" / "raw", per_class=3, seed=7)
        for stage in stages:
            stage.function(params, quiet)
        today = read_dataset(Path("build", "dataset.parquet"), project / "data" / "raw").of("train", "val")
        nights.append(today)
        extractor = StageInputs(params, quiet).extractor
        without_activations = extractor.missing(today, activations="stored")
        seen = set().union(*(training_sample(night, most).rows.digest for night in nights))
        assert without_activations == set(today.rows.digest) - seen
    record, base = (
        read_base_record(Path("build", "base_photos.parquet"), Path("data", "raw")),
        read_json(Path("reports", "base.json")),
    )
    assert (len(record.photos), record.of) == (most, len(nights[0]))
    assert (base["photos"], base["of"], base["is_renewed"]) == (most, len(nights[0]), False)
    assert base["words"].endswith(
        f"It is made of a sample of {most} of {len(nights[0])} photos (fine_tune.max_photos)."
    )
    came = set(nights[1].of("train").rows.digest) - set(nights[0].rows.digest)
    assert _report()["new"] == len(came & set(training_sample(nights[1], most).rows.digest)) > 0
    assert "of the sample of train (fine_tune.max_photos) that are new" in _report()["reason"]
