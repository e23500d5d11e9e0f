import importlib
from pathlib import Path

import onnx
import pytest

from regraft.core.config import Params
from regraft.core.files import read_json, sha256_of
from regraft.export.classifier import OnnxClassifier
from regraft.export.int8 import fewest_photos
from regraft.photos.dataset import read_dataset
from tasks.quantise import quantise
from tests.support.small_project import changed, quiet

FOUND_ANEW = {
    "frozen_part",
    "val",
    "novelty_above",
    "novelty_share",
    "novelty_photos",
    "abstain_below",
    "target_precision",
    "confidence",
    "no_threshold",
}


@pytest.fixture(scope="module")
def auto(small_params: Params) -> Params:
    """Settings under which a few photos can show something; int8 changes the answers of a random network a lot."""
    return changed(small_params, quantise={"mode": "auto", "budget": 0.9})


@pytest.fixture(autouse=True)
def few_photos(monkeypatch):
    monkeypatch.setattr(importlib.import_module("tasks.quantise"), "CALIBRATION_IMAGES", 8)


def facts(path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_switched_off_the_file_is_that_in_float32_byte_for_byte_and_the_report_says_so(project, small_params):
    quantise.function(small_params, quiet)
    report = read_json(project / "reports" / "int8.json")
    assert sha256_of(project / "models" / "model.int8.onnx") == sha256_of(project / "models" / "model.onnx")
    assert (report["precision"], report["words"]) == ("float32", "quantise.mode is off")


def test_where_val_photos_are_too_few_the_file_is_that_in_float32_however_many_training_photos_there_are(project, auto):
    photos = read_dataset(project / "build" / "dataset.parquet", Path())
    val, train = (len(photos.of(split)) for split in ("val", "train"))
    budget = next(each / 100 for each in range(99, 0, -1) if fewest_photos(each / 100) > val)
    needed = fewest_photos(budget)
    assert val < needed < val + train  # with training photos there would be enough
    quantise.function(changed(auto, quantise={"budget": budget}), quiet)
    report = read_json(project / "reports" / "int8.json")
    assert report["sha256"] == sha256_of(project / "models" / "model.onnx")
    assert f"{val} val photos cannot show that int8 costs at most {budget:.2%}" in report["words"]
    assert f"that takes {needed} that training has not seen" in report["words"]
    assert "test" not in report


def test_the_int8_file_has_the_same_ends_says_its_precision_and_is_the_same_without_any_test_photo(
    project, auto, monkeypatch
):
    path, source = project / "models" / "model.int8.onnx", project / "models" / "model.onnx"
    quantise.function(auto, quiet)
    first = read_json(project / "reports" / "int8.json")
    assert first["sha256"] == sha256_of(path)
    assert first["precision"] == "int8, per channel"
    assert first["bytes"] < 0.5 * source.stat().st_size
    assert first["test"]["images"] > 0
    before, after = onnx.load(source), onnx.load(path)
    assert [*after.graph.input, *after.graph.output] == [*before.graph.input, *before.graph.output]
    said, was = facts(path), facts(source)
    assert {name: said.get(name) for name in was if name not in FOUND_ANEW} == {
        name: value for name, value in was.items() if name not in FOUND_ANEW
    }
    assert (said["precision"], said["quantised_from"]) == ("int8, per channel", sha256_of(source))
    assert float(said["novelty_above"]) != float(was["novelty_above"])
    assert OnnxClassifier(path).has_novelty

    for photo in read_dataset(project / "build" / "dataset.parquet", Path()).of("test").photos():
        (project / "data" / "raw" / photo.path).unlink()
    monkeypatch.setattr(importlib.import_module("tasks.quantise"), "_on_test", lambda *_: {"images": 0})
    quantise.function(auto, quiet)
    assert read_json(project / "reports" / "int8.json")["sha256"] == first["sha256"]
