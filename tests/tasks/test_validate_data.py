import time
from types import SimpleNamespace

import pytest
from small_project import changed, quiet

from regraft.errors import InvalidData
from regraft.files import read_json
from regraft.manifest import read_manifest
from tasks.validate_data import validate_data


def test_a_good_folder_passes_and_every_image_is_in_the_manifest(project):
    layout, manifest = read_manifest(project / "build" / "manifest.parquet")
    assert layout == "classes"
    assert (len(manifest), set(manifest.verdict)) == (72, {"use"})


def test_a_class_with_too_few_images_stops_the_run_and_is_named(project, small_params):
    with pytest.raises(InvalidData, match=r"at least 25 usable images in every class.*deep blue: 24"):
        validate_data.function(changed(small_params, validate_data={"min_images_per_class": 25}), quiet)


def test_the_report_is_written_even_if_the_run_stops(project, small_params):
    for photo in (project / "data" / "raw" / "red").iterdir():
        photo.write_bytes(photo.read_bytes()[:60])
    with pytest.raises(InvalidData):
        validate_data.function(small_params, quiet)
    assert read_json(project / "reports" / "validation.json")["files"] == {"use": 48, "quarantine": 24, "ignore": 0}


def test_a_folder_of_broken_images_stops_with_what_to_do(project, small_params):
    for photo in (project / "data" / "raw").rglob("*.png"):
        photo.write_bytes(b"\x89PNG broken")
    with pytest.raises(InvalidData) as stop:
        validate_data.function(small_params, quiet)
    assert "72 of 72" in str(stop.value)
    assert "Replace or remove the files that validation.json names" in str(stop.value)


def test_a_second_run_decodes_nothing_and_writes_the_same_bytes(project, small_params, monkeypatch):
    # A minute later: files that were just written are looked at again, since they may be written once more.
    monkeypatch.setattr("regraft.scan.time", SimpleNamespace(time_ns=lambda: time.time_ns() + 60 * 10**9))
    validate_data.function(small_params, quiet)
    before = (project / "build" / "manifest.parquet").read_bytes()
    monkeypatch.setattr("regraft.scan.inspect", lambda *_, **__: pytest.fail("a file was decoded"))
    validate_data.function(small_params, quiet)
    assert (project / "build" / "manifest.parquet").read_bytes() == before
