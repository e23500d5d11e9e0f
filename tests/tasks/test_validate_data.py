import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from regraft.core.config import Params
from regraft.core.errors import InvalidData
from regraft.core.files import read_json
from regraft.features.table import read_features
from regraft.photos.manifest import read_manifest
from regraft.production.registry import Production
from regraft.production.training_data import build_reference
from tasks.validate_data import validate_data
from tests.support.small_project import quiet
from tests.support.suite import change_suite

SUITE = Path("expectations/photos.json")


@pytest.fixture(autouse=True)
def suite(project: Path) -> None:
    """The shipped expectations."""
    change_suite(project / SUITE, {})


def test_a_good_folder_passes_and_every_image_is_in_the_manifest(project):
    layout, manifest = read_manifest(project / "build" / "manifest.parquet")
    assert layout == "classes"
    assert (len(manifest), set(manifest.verdict)) == (72, {"use"})


def test_the_report_counts_what_was_decoded_and_fetched(project):
    report = read_json(project / "reports" / "validation.json")
    assert [report[name] for name in ("photos_decoded", "photos_fetched", "bytes_fetched")] == [72, 0, 0]


def test_a_class_with_too_few_images_stops_the_run_and_is_named(project, small_params):
    change_suite(project / SUITE, {"enough_images_per_class.min_value": 25})
    with pytest.raises(InvalidData, match=r"at least 25 usable images in every class.*deep blue: 24"):
        validate_data.function(small_params, quiet)


def test_the_report_is_written_even_if_the_run_stops(project, small_params):
    for photo in (project / "data" / "raw" / "red").iterdir():
        photo.write_bytes(photo.read_bytes()[:60])
    with pytest.raises(InvalidData):
        validate_data.function(small_params, quiet)
    assert read_json(project / "reports" / "validation.json")["files"] == {"use": 48, "quarantine": 24, "ignore": 0}


def test_files_that_cannot_be_used_are_named_on_the_terminal(project, small_params, capsys):
    folder = project / "data" / "raw" / "red"
    (folder / "evil\x1b[2J\n.png").write_bytes(b"\x89PNG broken")
    change_suite(project / SUITE, {"readable_images.mostly": 0.0})
    validate_data.function(small_params, quiet)
    change_suite(project / SUITE, {})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(r"validate_data: 1 file is quarantined: red/evil\x1b[2J\n.png: ")
    for number in range(11):
        (folder / f"broken-{number:02}.png").write_bytes(b"\x89PNG broken")
    (project / "data" / "raw" / "deep blue" / "copy.png").write_bytes(next(folder.glob("[0-9]*")).read_bytes())
    with pytest.raises(InvalidData):
        validate_data.function(small_params, quiet)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("validate_data: 14 files are quarantined: deep blue/copy.png: the same file stands under ")
    assert line.endswith(" and 4 more. reports/validation.json has all of them.")


def test_a_second_run_decodes_nothing_and_writes_the_same_bytes(project, small_params, monkeypatch):
    # A minute later: files that were just written are looked at again, since they may be written once more.
    monkeypatch.setattr("regraft.photos.scan.time", SimpleNamespace(time_ns=lambda: time.time_ns() + 60 * 10**9))
    validate_data.function(small_params, quiet)
    before = (project / "build" / "manifest.parquet").read_bytes()
    monkeypatch.setattr("regraft.photos.inspectors.Inspectors.inspect", lambda *_: pytest.fail("a file was decoded"))
    validate_data.function(small_params, quiet)
    assert (project / "build" / "manifest.parquet").read_bytes() == before


def violated(project: Path) -> set[str]:
    expectations = read_json(project / "reports" / "validation.json")["expectations"]
    return {entry["name"] for entry in expectations if not entry["success"]}


def put_into_production(project: Path, params: Params) -> Production:
    production = Production(params.paths.production)
    _, manifest = read_manifest(params.paths.manifest)
    reference = build_reference(manifest, read_features(params.paths.features))
    production.promote(params.paths.onnx, "better", keep=1, reference=reference)
    return production


def test_a_new_class_and_a_vanished_one_are_reported_against_the_model_in_production(project, small_params):
    put_into_production(project, small_params)
    (project / "data" / "raw" / "red").rename(project / "data" / "raw" / "orange")
    validate_data.function(small_params, quiet)
    assert {"no_new_classes", "no_vanished_classes"} <= violated(project)
    assert read_json(project / "reports" / "validation.json")["compared_with"].startswith(
        "Compared with the 72 photos of"
    )


def test_a_damaged_reference_stops_nothing_and_is_told(project, small_params):
    put_into_production(project, small_params)
    (reference,) = (project / "models" / "production" / "versions").glob("*.parquet")
    reference.write_bytes(b"damaged")
    validate_data.function(small_params, quiet)
    assert "is damaged" in read_json(project / "reports" / "validation.json")["compared_with"]


def test_a_wrong_file_of_expectations_stops_the_run_before_the_photos_are_read(project, small_params, monkeypatch):
    monkeypatch.setattr("tasks.validate_data.build_manifest", lambda *_, **__: pytest.fail("photos were read"))
    (project / "expectations" / "mine.json").write_text("{")
    with pytest.raises(InvalidData, match="is no suite of expectations"):
        validate_data.function(small_params, quiet)
