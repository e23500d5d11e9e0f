"""The row of a run: what it found out itself, and nothing of an earlier run. And what happens where nothing is kept."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from regraft.core.config import Params
from regraft.core.files import write_json
from regraft.production.run_history import FILE, read_rows
from tasks.runs import run_history
from tasks.runs.current_run import RunRecord, StageRun, new_run_id
from tasks.runs.run_history import add_crashed, add_to_history, rows_of, trend, week
from tests.support.pipeline import STAGES

RUN = ["record_data", "record_code", *STAGES, "promote_model", "write_report"]


def record(name: str, *stages: StageRun, words: str = "", minutes: float = 1.0) -> RunRecord:
    """A run that began a moment ago; without stages it had nothing to do."""
    started = datetime.now(UTC) - timedelta(seconds=1)
    words = words or f"{name}: because."
    return RunRecord(new_run_id(started), started, started + timedelta(minutes=minutes), "hand", name, words, stages)


def ran(until: str = "write_report", outcome: str = "Ran", last: str | None = None) -> list[StageRun]:
    """The stages up to one, which may end otherwise."""
    names = RUN[: RUN.index(until) + 1]
    return [StageRun(name, outcome, 1.5) for name in names[:-1]] + [StageRun(names[-1], last or outcome, 2.0)]


def write_dataset(photos: str) -> None:
    digests = [hashlib.sha256(letter.encode()).hexdigest() for letter in photos]
    pd.DataFrame({"digest": digests, "class_name": "x"}).to_parquet("build/dataset.parquet")
    write_json(Path("reports/dataset.json"), {"images": len(photos), "classes": {"x": {}, "y": {}}})


def write_reports(model: str = "b" * 64) -> None:
    test = {"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.94, "images": 40}
    checks = [{"name": "no_drift", "severity": "warn", "success": False}, {"name": "x", "severity": "note"}]
    figures = {"population_stability": 0.2, "population_stability_limit": 0.4, "shift": 0.9, "shift_limit": 0.6}
    drift = [{"quantity": "brightness", "photos": "joined", "psi": 0.1, "limit": 0.25}]
    for name, contents in {
        "metrics": {"test": test},
        "export": {"sha256": model},
        "features": {"computed": 7, "from_store": 30},
        "validation": {"files": {"quarantine": 3}, "expectations": [], "drift": drift},
        "embeddings": {"expectations": checks, "drift": [{"figures": figures}, {"figures": None}]},
        "gate": {"champion": test | {"accuracy": 0.88}},
    }.items():
        write_json(Path(f"reports/{name}.json"), contents)


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_params: Params) -> Params:
    """The files of a project that has run, as the current folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("build", "reports", "models", "data", ".dvc/tmp"):
        Path(folder).mkdir(parents=True)
    Path("data/raw.dvc").write_text("outs:\n- md5: 0123456789abcdef.dir\n  path: raw\n  nfiles: 9\n  size: 8\n")
    write_dataset("abcdefg")
    write_reports()
    return small_params


def as_before() -> None:
    """Make the reports those of an earlier run."""
    for path in Path("reports").iterdir():
        os.utime(path, (1e9, 1e9))


def test_a_run_that_worked_has_every_figure(params: Params) -> None:
    row = add_to_history(params, record("Refused", *ran()))
    assert read_rows(params.paths.production) == [row]
    assert (row.accuracy, row.accuracy_low, row.test_photos, row.champion_accuracy) == (0.9, 0.85, 40, 0.88)
    assert (row.photos, row.classes, row.quarantined, row.computed, row.from_store) == (7, 2, 3, 7, 30)
    assert (row.model, row.champion, row.data_version) == ("b" * 64, None, "0123456789abcdef")
    assert row.drift == pytest.approx(1.5)
    assert (row.drift_of, row.drift_warned, row.warnings) == ("shift of the features of new photos, 0.90", True, 1)
    assert row.seconds["write_report"] == 2.0


def test_what_joined_and_left_is_counted_from_run_to_run(params: Params) -> None:
    assert add_to_history(params, record("Promoted", *ran())).new is None
    write_dataset("abcxyz")
    add_to_history(params, record("Failed", *ran("validate_data", last="Failed")))  # knows nothing of its photos
    row = add_to_history(params, record("Promoted", *ran()))
    assert (row.new, row.gone, row.relabelled) == (3, 4, 0)
    row = add_to_history(params, record("Already in production"))
    assert (row.new, row.gone, row.relabelled) == (0, 0, 0)


@pytest.mark.parametrize("stopped", ["record_data", "validate_data", "cache_features", "fine_tune", "promote_model"])
def test_what_a_run_did_not_reach_is_never_the_figure_of_an_earlier_one(params: Params, stopped: str) -> None:
    as_before()
    row = add_to_history(params, record("Failed", *ran(stopped, last="Failed")))
    reached = RUN.index(stopped)
    for stage, figure in {
        "record_data": row.data_version,
        "validate_data": row.quarantined,
        "preprocess": row.photos,
        "cache_features": row.computed,
        "check_features": row.warnings if stopped != "cache_features" else None,
        "export_onnx": row.model,
        "evaluate": row.accuracy,
        "promote_model": row.champion_accuracy,
    }.items():
        assert (figure is not None) == (RUN.index(stage) < reached), stage


def test_a_stage_that_stops_after_its_report_has_found_that_out(params: Params) -> None:
    as_before()
    shutil.copyfile("reports/validation.json", "reports/new.json")
    Path("reports/new.json").replace("reports/validation.json")
    row = add_to_history(params, record("Failed", *ran("validate_data", last="Failed")))
    assert (row.quarantined, row.photos) == (3, None)


def test_a_run_with_nothing_to_do_computed_nothing_and_has_the_figures_that_still_hold(params: Params) -> None:
    as_before()
    row = add_to_history(params, record("Already in production"))
    assert (row.computed, row.from_store, row.photos, row.accuracy) == (0, 0, 7, 0.9)
    assert row.champion_accuracy is None
    row = add_to_history(params, record("Already in production", *ran(outcome="Up to date")))
    assert (row.computed, row.accuracy) == (0, 0.9)


def test_a_run_of_the_gate_alone_has_the_figures_of_the_gate(params: Params) -> None:
    said = {"challenger": {"accuracy": 0.91, "images": 30}, "champion": {"accuracy": 0.9}, "about": {"model": "c" * 64}}
    write_json(Path("reports/gate.json"), said)
    row = add_to_history(params, record("Promoted", StageRun("promote_model", "Promoted", 3.0)))
    assert (row.accuracy, row.champion_accuracy, row.model, row.photos) == (0.91, 0.9, "c" * 64, None)


@pytest.mark.parametrize("contents", ["", "[]", '{"test": [1], "images": "many", "drift": {"a": 1}, "champion": 7}'])
def test_reports_of_any_shape_tell_nothing_and_stop_nothing(params: Params, contents: str) -> None:
    for path in Path("reports").glob("*.json"):
        path.write_text(contents)
    Path("build/dataset.parquet").write_text(contents)
    Path("data/raw.dvc").write_text(contents)
    row = add_to_history(params, record("Refused", *ran()))
    assert (row.accuracy, row.photos, row.model, row.new, row.data_version) == (None,) * 5
    assert read_rows(params.paths.production) == [row]


def test_the_report_of_a_run_is_kept_and_so_many_of_them(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_history, "KEPT_RUNS", 2)
    runs = []
    for number in range(4):
        Path("reports/report.html").write_text(f'<a href="validation.html">{number}</a>')
        runs.append(replace(record("Promoted", *ran()), run=f"2026112{number}T030000-0a1b2c"))
        add_to_history(params, runs[-1])
    os.utime("reports/report.html", (1e9, 1e9))
    add_to_history(params, record("Already in production"))
    kept = {path.name: path.read_text() for path in Path("reports/runs").iterdir()}
    assert kept == {f"{runs[n].run}.html": f'<a href="../validation.html">{n}</a>' for n in (2, 3)}
    page = Path("reports/history.html").read_text()
    assert f'href="runs/{runs[3].run}.html"' in page
    assert runs[1].run not in page


def test_a_name_that_is_no_run_becomes_no_file(params: Params) -> None:
    Path("reports/report.html").write_text("x")
    add_to_history(params, replace(record("Promoted", *ran()), run="../../evil"))
    add_crashed(params, "../evil", datetime.now(UTC), "hand", "")
    assert not Path("reports/runs").exists()
    assert not list(Path().glob("**/evil*"))
    assert len(rows_of(params)) == 2


def test_a_row_that_cannot_be_written_waits_for_the_next_run(
    params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_history, "_PATIENCE_SECONDS", 0.05)
    folder = params.paths.production
    folder.symlink_to("nowhere/at/all")
    first = add_to_history(params, record("Promoted", *ran()))
    assert "The history of runs could not be written" in capsys.readouterr().err
    assert rows_of(params) == [first]
    assert "The first run" in Path("reports/history.html").read_text()
    folder.unlink()
    second = add_to_history(params, record("Undecided", *ran()))
    assert {row.run for row in read_rows(folder)} == {first.run, second.run}
    assert not list(Path(".dvc/tmp/regraft/history").iterdir())


def test_a_damaged_history_is_put_aside_with_a_word(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    params.paths.production.mkdir()
    (params.paths.production / FILE).write_text("hello")
    row = add_to_history(params, record("Promoted", *ran()))
    assert "set aside as history.damaged-" in capsys.readouterr().err
    assert rows_of(params) == [row]


def test_a_run_that_died_has_a_row_unless_it_has_one_of_its_own(params: Params) -> None:
    done = record("Promoted", *ran())
    add_to_history(params, done)
    add_crashed(params, done.run, done.started, "hand", "died")
    died = datetime.now(UTC)
    add_crashed(params, new_run_id(died), died, "retrain-nightly", "The process ended in fine_tune.")
    assert [row.name for row in rows_of(params)] == ["Promoted", "Crashed"]
    assert "The process ended in fine_tune." in Path("reports/history.html").read_text()
    assert "| Crashed |" in trend(params)
    assert "1 promoted, 1 crashed" in week(params)


def test_the_revision_has_a_mark_if_what_decides_results_was_edited(params: Params) -> None:
    def git(*arguments: str) -> str:
        ours = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
        return subprocess.run(["git", *ours, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    assert add_to_history(params, record("Completed")).revision is None
    for name in ("params.yaml", "dvc.lock"):
        Path(name).write_text("a: 1\n")
    git("init", "-q")
    assert add_to_history(params, record("Completed")).revision is None  # nothing is committed
    git("add", "params.yaml", "dvc.lock", "data/raw.dvc")
    git("commit", "-q", "-m", "x")
    revision = git("rev-parse", "HEAD")[:12]
    for name in ("dvc.lock", "data/raw.dvc"):
        Path(name).write_text("outs: []\n")
    assert add_to_history(params, record("Completed")).revision == revision
    Path("params.yaml").write_text("a: 2\n")
    assert add_to_history(params, record("Completed")).revision == f"{revision}+"


def test_a_run_with_nothing_to_do_needs_neither_pandas_nor_tensorflow_nor_matplotlib() -> None:
    loads = "import sys, json, tasks.runs.run_history; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", loads]
    modules = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert not {"pandas", "tensorflow", "matplotlib", "prefect", "dvc"} & set(modules)
