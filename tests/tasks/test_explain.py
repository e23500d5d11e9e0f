import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from regraft.core.errors import RegraftError
from regraft.core.params_file import load_params
from tasks.dvc_files import photos_of
from tasks.runs import receipts
from tasks.runs.current_run import RunRecord
from tasks.runs.explain import explain
from tasks.runs.receipts import write_receipt
from tests.support.project import Project
from tests.support.run_receipts import record_of, versions, write_project, write_results

QUIET = ["Up to date"] * 4


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose first run has a receipt, as the current folder."""
    root = tmp_path / "project"
    write_project(root)
    (root / ".dvc" / "config").touch()
    monkeypatch.chdir(root)
    monkeypatch.setattr(receipts, "installed_versions", versions)
    _end(record_of(0))
    return Project(root, {})


def _end(record: RunRecord) -> None:
    write_receipt(load_params(Path("params.yaml")), record)


def _explain(wanted: str | None = None) -> str:
    return explain(load_params(Path("params.yaml")), wanted)


def _line(text: str, beginning: str) -> str:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [beginning]]
    return line


def _photos(data: str, **files: str) -> None:
    """Put the list of the files of a data version into DVC's cache."""
    path = Path(".dvc", "cache", "files", "md5", data * 2, f"{data * 30}.dir")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"md5": each * 32, "relpath": f"{name}.png"} for name, each in files.items()]))


def test_the_first_run_has_nothing_to_be_compared_with(project):
    said = _explain()
    assert said.startswith("Run 20261126T030000-000000, 2026-11-26 03:00 UTC, started by retrain-nightly: Promoted\n")
    assert "no receipt of a run before" in said


def test_a_stage_ran_because_its_settings_data_code_or_libraries_changed(project):
    project.set_param("validate_data.max_pixels", 4)
    write_results(project.root, "b", max_pixels="4", code="5678", numpy="2.2")
    _end(record_of(1))
    expected = (
        "data/raw changed; validate_data.max_pixels 120000000 -> 4; code changed: tasks.validate_data; numpy 2.1 -> 2.2"
    )
    assert _line(_explain(), "validate_data").endswith(expected)
    assert _line(_explain(), "settings").endswith("validate_data.max_pixels 120000000 -> 4")
    assert _line(_explain(), "export_onnx").endswith("build/manifest.parquet changed")


def test_photos_are_told_as_added_gone_and_changed(project):
    _photos("a", one="1", two="2", three="3", four="4")
    _photos("b", one="1", two="9", five="3", six="6")
    write_results(project.root, "b")
    _end(record_of(1))
    expected = "2 added (five.png, six.png), 2 gone (four.png, three.png), 1 with other content (two.png)"
    assert f"{expected}; 301 files now" in _line(_explain(), "photos")


def test_without_the_lists_of_names_photos_are_counted(project):
    write_results(project.root, "b")
    _end(record_of(1))
    assert "301 files after 301; DVC's cache does not have both" in _line(_explain(), "photos")


def test_what_came_from_the_cache_or_was_missing_is_told(project):
    _end(record_of(1, "Promoted", "", "Up to date", "Restored", "Ran", "Up to date"))
    said = _explain()
    assert "outputs were not as dvc.lock says: removed, or changed (taken from DVC's cache" in _line(
        said, "validate_data"
    )
    assert _line(said, "export_onnx").endswith("its outputs were not as dvc.lock says: removed, or changed")
    assert _line(said, "evaluate").endswith("nothing that it reads has changed")


def test_of_a_failed_run_it_is_told_where_and_why_and_what_was_not_reached(project):
    project.set_param("validate_data.max_pixels", 5)
    _end(record_of(1, "Failed", "Too many photos are broken.", "Recorded", "Failed"))
    said = _explain()
    assert "Failed\nToo many photos are broken." in said
    assert _line(said, "validate_data").endswith("did not end well")
    assert _line(said, "export_onnx").endswith("not reached")


def test_of_a_run_that_did_nothing_it_is_told_since_when_nothing_changed(project):
    _end(record_of(1, "Already in production", "Nothing to do.", *QUIET))
    said = _explain()
    assert said.startswith(f"Run {record_of(1).run}")
    assert f"nothing has changed since run {record_of(0).run}" in said
    assert _explain("-1").startswith(f"Run {record_of(0).run}")


def test_names_of_photos_do_not_reach_the_terminal_as_commands(project):
    _photos("a")
    _photos("b", **{"\x1b[2J": "1"})
    write_results(project.root, "b")
    _end(record_of(1))
    assert "\x1b" not in _explain()


def test_a_damaged_receipt_is_named(project):
    Path("receipts", f"{record_of(0).run}.json").write_text("{")
    with pytest.raises(RegraftError, match=r"000000\.json is damaged"):
        _explain()


def test_a_receipt_of_another_shape_is_named(project):
    path = Path("receipts", f"{record_of(0).run}.json")
    path.write_text(path.read_text().replace('"stages": [', '"stages": ["x", '))
    with pytest.raises(RegraftError, match=r"000000\.json is damaged"):
        _explain()


@pytest.mark.parametrize("place", [os.mkfifo, lambda path: path.symlink_to("../elsewhere.json")])
def test_what_is_no_plain_file_is_no_receipt(project, place):
    receipt = Path("receipts", f"{record_of(0).run}.json")
    receipt.rename("elsewhere.json")
    place(receipt)
    with pytest.raises(RegraftError, match=r"must be a file|there is no receipt"):
        _explain()


@pytest.mark.parametrize("arguments", [[], ["-1"], ["20261126"]])
def test_the_command_line_takes_a_number_from_the_end(project, arguments):
    said = CliRunner().invoke(app, ["explain", *arguments])
    assert (said.exit_code, said.output.split(",")[0]) == (0, f"Run {record_of(0).run}")


def test_what_a_receipt_from_elsewhere_names_is_no_path(project):
    folder = Path("receipts")
    shutil.copy(folder / f"{record_of(0).run}.json", "elsewhere.json")
    _end(record_of(1))
    path = folder / f"{record_of(1).run}.json"
    path.write_text(path.read_text().replace(f'"previous": "{record_of(0).run}"', '"previous": "../elsewhere"'))
    assert "no receipt of a run before" in _explain()
    Path("list").write_text('[{"relpath": "hidden", "md5": "1"}]')
    assert photos_of(Path(), f"..{Path('list').resolve()}") is None


def test_where_the_clock_was_set_back_the_last_run_is_still_the_last(project):
    early = replace(record_of(1), run="20261101T030000-000001")
    _end(early)
    assert _explain().startswith(f"Run {early.run}")
