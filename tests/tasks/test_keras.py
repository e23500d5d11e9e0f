"""`regraft keras`: what the run trained, in Keras' own format."""

import keras
import numpy as np
import onnx
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from flows.cli import app
from regraft.export.classifier import OnnxClassifier
from regraft.export.compose import with_head, write_graph
from regraft.photos.preparation import Preparation
from regraft.training.network_file import read_network
from tests.support.pipeline import ROOT
from tests.support.small_project import changed


@pytest.fixture
def run(project, small_params):
    """A function that calls the command; it returns what it printed."""

    def call(*arguments: str, **settings) -> str:
        with (project / "params.yaml").open("w") as file:
            YAML().dump(changed(small_params, **settings).model_dump(mode="json"), file)
        (project / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
        return CliRunner().invoke(app, ["keras", *arguments]).output

    return call


def test_the_network_in_keras_says_what_the_file_that_ships_says(project, small_params, run, photo):
    assert "models/model.keras: prepared RGB 0 to 255 in" in run()
    model, classifier = (
        keras.saving.load_model(project / "models/model.keras"),
        OnnxClassifier(project / "models/model.onnx"),
    )
    rgb = photo(0, 97, 73)
    prepared = Preparation(64, small_params.preprocess.crop_fraction)(rgb)[None].astype(np.float32)
    assert model.predict_on_batch(prepared)[0] == pytest.approx(classifier.probabilities(rgb), abs=0.002)


def test_the_network_in_keras_has_the_temperature_that_the_file_has(project, small_params, run, photo):
    path, head = project / "models/model.onnx", read_network(project / "models/model.npz").head
    plain, prototypes = onnx.load(path), np.eye(3, 1280, dtype=np.float32)
    shift = [0.5, 0.0, -1.0]
    cooled = with_head(plain, head.rescaled(0.3, shift), prototypes)
    write_graph(path, cooled, {"temperature": "0.3", "logit_shift": str(shift)})
    run()
    model, rgb = keras.saving.load_model(project / "models/model.keras"), photo(0, 97, 73)
    prepared = Preparation(64, small_params.preprocess.crop_fraction)(rgb)[None].astype(np.float32)
    said = OnnxClassifier(path).probabilities(rgb)
    assert model.predict_on_batch(prepared)[0] == pytest.approx(said, abs=0.002)
    assert np.abs(said - head.rescaled(1.0).probabilities(OnnxClassifier(path).features(rgb)[None])[0]).max() > 0.05


def test_a_network_of_another_backbone_is_not_written(project, run):
    for setting in ({"image_size": 96}, {"preprocessing": "caffe"}):
        said = run("a.keras", backbone=setting)
        assert "keras stopped: models/model.onnx was trained on efficientnet_lite0 at 64 pixels" in said
    assert not (project / "a.keras").exists()


def test_a_damaged_file_is_named(project, run):
    (project / "models/model.onnx").write_bytes(b"damaged")
    assert "keras stopped: models/model.onnx is not a model exported by Regraft" in run()


def test_before_the_first_run_it_says_what_to_do(project, run):
    (project / "models/model.npz").unlink()
    assert "keras stopped: there is no models/model.npz yet. Run `regraft retrain` first." in run()
