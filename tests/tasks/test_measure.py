"""`regraft report --measure`: what it writes, and that it pays only for what changed."""

from contextlib import contextmanager
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from flows.cli import app
from regraft.core.files import read_json, sha256_of
from regraft.core.processor import Processor
from regraft.export import latency, latency_child
from regraft.export.latency import Contestant
from regraft.serving.shipped_model import ShippedModel
from tasks import measure
from tests.support.pipeline import ROOT

SMALL = {"PHOTO_SIZE": (64, 48), "REPEATS": 3, "ROBUSTNESS_PHOTOS": 4, "ROBUSTNESS_SIDE": 48}


@pytest.fixture
def run(project, small_params, monkeypatch):
    """A function that calls the command on one core and in one round; it returns what it printed."""
    monkeypatch.setattr(latency, "_ROUNDS", 1)
    monkeypatch.setattr(latency, "this_processor", lambda: Processor("a processor", 1, []))

    def call(*arguments: str, **constants: int) -> str:
        for name, value in (SMALL | constants).items():
            monkeypatch.setattr(measure, name, value)
        with (project / "params.yaml").open("w") as file:
            YAML().dump(small_params.model_dump(mode="json"), file)
        (project / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
        return CliRunner().invoke(app, ["report", "--measure", *arguments]).output

    return call


@pytest.fixture(autouse=True)
def no_report_is_written(request, monkeypatch):
    """Drawing takes seconds; one test looks at it."""
    if "with_report" not in request.fixturenames:
        monkeypatch.setattr("tasks.report.refresh_report", lambda: False)


@pytest.fixture
def with_report():
    """The report is written."""


@pytest.fixture
def without_keras(monkeypatch):
    @contextmanager
    def nothing(params, model):
        yield Contestant("Keras", "keras", params.paths.onnx, problem="it takes long")

    monkeypatch.setattr(measure, "_in_keras", nothing)


def altered(path):
    """Give a file other bytes, and let it say the same."""
    model = onnx.load(path)
    model.producer_name = "another"
    onnx.save(model, path)


def test_what_keras_is_timed_with_answers_as_the_file_does(project, small_params, photo, monkeypatch):
    monkeypatch.setattr("tensorflow.config.threading", Mock())  # fixed once TensorFlow has begun, as here
    model, rgb = ShippedModel(project / "models" / "model.onnx"), photo(0, 61, 47)
    with measure._in_keras(small_params, model) as keras:
        assert keras.problem == ""
        answer = latency_child._keras({**keras.more, "file": str(keras.file), "threads": 2})
        assert answer(rgb[None])[0] == pytest.approx(model.probabilities(rgb), abs=0.002)
        assert answer(np.stack([rgb, rgb]))[1] == pytest.approx(model.probabilities(rgb), abs=0.002)


@pytest.mark.usefixtures("without_keras")
def test_figures_of_speed_name_the_file_that_they_are_about(project, run):
    run("--only", "latency")
    report = read_json(project / "reports" / "latency.json")
    assert report["about"] == {"model": sha256_of(project / "models" / "model.onnx"), "int8": None}
    assert not (project / "reports" / "robustness.json").exists()


def test_robustness_is_measured_once_for_a_file_and_its_photos(project, run):
    path = project / "reports" / "robustness.json"
    total = len((project / "reports" / "predictions.csv").read_text().splitlines()) - 1
    assert f"stays on 4 of {total} test photos" in run("--only", "robustness")
    first = path.stat().st_mtime_ns
    assert read_json(path)["files"][0]["of_images"] == total
    assert "already; --again" in run("--only", "robustness")
    assert path.stat().st_mtime_ns == first
    assert f"4 of {total} test photos" in run("--only", "robustness", "--again")
    assert f"3 of {total} test photos" in run("--only", "robustness", ROBUSTNESS_PHOTOS=3)
    (project / "models" / "model.int8.onnx").unlink()  # of the file before, and so a second one
    altered(project / "models" / "model.onnx")
    assert f"3 of {total} test photos" in run("--only", "robustness", ROBUSTNESS_PHOTOS=3)
    (found,) = read_json(path)["files"]
    assert found["sha256"] == sha256_of(project / "models" / "model.onnx")


def test_an_int8_file_beside_it_is_measured_and_what_is_known_of_the_other_is_not_measured_again(
    project, run, monkeypatch
):
    run("--only", "robustness")
    model, asked, real = project / "models" / "model.onnx", [], measure.robustness.measure
    (project / "models" / "model.int8.onnx").write_bytes(model.read_bytes())
    altered(project / "models" / "model.int8.onnx")
    monkeypatch.setattr(
        measure.robustness,
        "measure",
        lambda file, *rest, **more: asked.append(file.digest) or real(file, *rest, **more),
    )
    run("--only", "robustness")
    files = read_json(project / "reports" / "robustness.json")["files"]
    assert [each["name"] for each in files] == ["model.onnx", "model.int8.onnx"]
    assert asked == [files[1]["sha256"]]
    lines = (project / "reports" / "robustness.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(len(each["rows"]) for each in files)


@pytest.mark.usefixtures("without_keras", "with_report")
def test_the_command_measures_both_and_the_report_is_there(project, run):
    said = run()
    assert "latency.json: how fast models/model.onnx answers" in said
    assert "robustness.json: how accurate" in said
    keras = read_json(project / "reports" / "latency.json")["rows"][-1]
    assert keras == {"name": "Keras", "engine": "keras", "problem": "it takes long"}
    assert (project / "reports" / "report.html").exists()


def test_before_the_first_run_it_says_what_to_do(project, run):
    (project / "build" / "dataset.parquet").unlink()
    assert "report stopped: there is no build/dataset.parquet yet. Run `regraft retrain` first." in run()
