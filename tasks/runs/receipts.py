"""Receipts: one small JSON file per run that says what went in, what came out, in which versions, and what was decided.

    <paths.receipts>/<run>.json

Keys are sorted, one value a line, so that git shows what changed from night to night. No path of this machine, no user
and no host is in it. A run that did nothing, after which everything is as the last receipt says, adds none.
"""

import os
import platform
import re
import stat
from collections.abc import Collection
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regraft.core.config import Params
from regraft.core.errors import Damaged, RegraftError, printable, safe_text
from regraft.core.files import finite, md5_of, read_json, readable_bytes, reading, sha256_of, write_json
from regraft.core.provenance import installed_versions
from tasks.locked import data_version, read_locked
from tasks.runs.git import NoGit, open_git
from tasks.runs.run_record import RunRecord
from tasks.runs.snapshots import drop_snapshots, keep_snapshot, runs_with_snapshot, take_snapshot
from tasks.runs.this_machine import instruction_set, without_machine

LAST_RUN = Path(".dvc", "tmp", "regraft", "last_run.json")  # the record of the last run, with or without a receipt
DONE = ("Up to date", "Restored", "Recorded", "Ran")  # outcomes of a stage whose outputs are there
_NOTHING_NEW = ("Already in production", "Completed")  # names of runs that may have had nothing to do
_BROKEN = ("Failed", "Cancelled", "Crashed")  # names of runs that did not come to their end
_AROUND = ("promote_model", "write_report")  # steps that are no stages
_EXPORT = "export_onnx"  # the stage that writes the model
_RUN = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")
MOST_BYTES = 10_000_000  # of a receipt; the usual one has 100,000
_LONGEST, _DEEPEST = 10_000, 12  # letters of a text, and values within values
_KEYS = ("run", "name", "stages", "locked", "marks")


def write_receipt(params: Params, record: RunRecord) -> Path:
    """Write the receipt of a run in the current folder, and keep a snapshot of what it was made from.

    Returns:
        Its path; that of the last one where this run did nothing and all is as it says.

    Raises:
        RegraftError: there is no room, or the folder cannot be written to.
    """
    write_json(LAST_RUN, _plain(record))
    folder, marks = params.paths.receipts, _marks(params)
    before = [run for run in runs_with_receipt(folder) if run != record.run]
    last = _read_or_none(folder / f"{before[-1]}.json") if before else None
    if last and _did_nothing(record, last) and last["marks"] == marks:
        return folder / f"{last['run']}.json"
    receipt = _facts(params, record) | {"marks": marks, "previous": before[-1] if before else None}
    path = folder / f"{record.run}.json"
    _write_with_snapshot(params, record, path, receipt)
    return path


def read_receipt(params: Params, run: str) -> dict[str, Any]:
    """Return the receipt of a run.

    Raises:
        FileNotFoundError, Damaged: there is none, or it says something else than a receipt does.
    """
    if not _RUN.fullmatch(run):  # a receipt from elsewhere may name anything as the one before it
        raise FileNotFoundError(run)
    return _read(params.paths.receipts / f"{run}.json")


def runs_with_receipt(folder: Path) -> list[str]:
    """Return the names of the runs that have a receipt, oldest first; nothing else in the folder counts."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if is_receipt(path.name))
    return sorted(path.stem for path in found if path.is_file() and not path.is_symlink())


def is_receipt(name: str) -> bool:
    """Whether a file may have that name as a receipt."""
    return name.endswith(".json") and _RUN.fullmatch(name.removesuffix(".json")) is not None


def find_run(params: Params, wanted: str | None) -> str:
    """Return the name of a run that has a receipt.

    Args:
        params: all settings.
        wanted: its name or how that begins; -1 is the last one, -2 the one before; None is -1.

    Raises:
        RegraftError: there is none, or more than one.
    """
    runs = runs_with_receipt(params.paths.receipts)
    if not runs:
        raise RegraftError(f"there is no receipt in {params.paths.receipts} yet. Run `regraft retrain` first.")
    wanted = "-1" if wanted is None else wanted
    if re.fullmatch(r"-[1-9]\d{0,8}", wanted):
        found = runs[int(wanted) :][:1] if int(wanted) >= -len(runs) else []
    else:
        found = [run for run in runs if run == wanted] or [run for run in runs if run.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    some, count = (found, len(found)) if found else (runs, len(runs))
    shown = ", ".join(some[-5:])
    what = f"{count} runs begin with {wanted}" if found else f"no run is called {wanted}, of {count} with a receipt"
    raise RegraftError(f"{what}: {'... ' if count > 5 else ''}{shown}. Name one of them, or -1 for the last.")


def runs_to_forget(params: Params, runs: Collection[str]) -> list[str]:
    """Return those of some runs whose snapshots are too old, and did not make the model that is in production."""
    old = [run for run in sorted(runs)[: -params.nights.keep_reports] if _RUN.fullmatch(run)]
    production = _sha256(params.paths.production / "model.onnx") if old else None
    receipts = {run: _read_or_none(params.paths.receipts / f"{run}.json") or {} for run in old}
    return [run for run in old if production is None or receipts[run].get("model") != production]


def last_run() -> dict[str, Any] | None:
    """Return what the last run in the current folder did, with or without a receipt; None if that is not known.

    Its keys are those of RunRecord; times are ISO 8601, in UTC.
    """
    try:
        return read_json(LAST_RUN, "run", "started", "ended", "name", "words", "stages")
    except (FileNotFoundError, Damaged):
        return None


def work_of_last_run() -> dict[str, str] | None:
    """Return what became of each stage in the last run, empty if all were up to date at once.

    None where that is not known, or where a `dvc repro` by hand came after it.
    """
    last = last_run()
    if last is None or (Path("dvc.lock").exists() and Path("dvc.lock").stat().st_mtime > LAST_RUN.stat().st_mtime):
        return None
    return {step["name"]: step["outcome"] for step in last["stages"] if is_of_stage(step)}


def is_of_stage(outcome: dict[str, Any]) -> bool:
    """Whether a step of a receipt or of the last run is one that makes something, and neither gate nor report."""
    return outcome["name"] not in _AROUND


def _did_nothing(record: RunRecord, last: dict[str, Any]) -> bool:
    is_quiet = record.name in _NOTHING_NEW or record.name == last["name"]  # refused for the same as before
    return (
        is_quiet
        and record.name not in _BROKEN
        and all(run.outcome == "Up to date" for run in record.stages if run.name not in _AROUND)
    )


def _marks(params: Params) -> dict[str, str | None]:
    """What shows within milliseconds whether anything has changed since another receipt."""
    raw = params.paths.raw.with_name(f"{params.paths.raw.name}.dvc")
    files = {"lock": Path("dvc.lock"), "params": Path("params.yaml"), "data": raw}
    files["production"] = params.paths.production / "model.onnx"
    return {name: _sha256(path) for name, path in files.items()}


def _facts(params: Params, record: RunRecord) -> dict[str, Any]:
    locked = read_locked()
    model = _model_of(params, record, locked)
    return {
        "run": record.run,
        "name": record.name,
        "words": safe_text(without_machine(record.words))[:_LONGEST],
        "started": _time(record.started),
        "ended": _time(record.ended),
        "started_by": without_machine(record.started_by),
        "stages": [asdict(run) | {"seconds": round(run.seconds, 1)} for run in record.stages],
        "data": data_version(params, locked),
        "test": _test_figures(params) if model and _outcome(record, "evaluate") in DONE else None,
        "model": model,
        "production": _sha256(params.paths.production / "model.onnx"),
        "params": params.model_dump(mode="json"),
        "locked": locked,
        "versions": {"python": platform.python_version(), **installed_versions()},
        "machine": {"cores": os.cpu_count(), "instruction_set": instruction_set()},
    }


def _write_with_snapshot(params: Params, record: RunRecord, path: Path, receipt: dict[str, Any]) -> None:
    """Write a receipt that names its snapshot, or says why there is none: a run whose work is done needs no git."""
    revision = snapshot = None
    problem = ""
    try:
        if record.name == "Crashed":  # told by the run after it, when photos and code may be others
            raise NoGit("it was killed before it could make one.")
        git = open_git(Path.cwd())
        revision = git.revision()
        snapshot = take_snapshot(git, params, record.run, record.ended)
        _write(path, receipt, revision, snapshot, "")
        keep_snapshot(git, record.run, snapshot, path, record.ended)
        drop_snapshots(git, runs_to_forget(params, runs_with_snapshot(git)))
    except NoGit as error:
        problem = without_machine(str(error))
    if problem:
        _write(path, receipt, revision, None, problem)


def _write(path: Path, receipt: dict[str, Any], revision: str | None, snapshot: str | None, problem: str) -> None:
    git = {"revision": revision, "snapshot": snapshot, "problem": problem}
    write_json(path, _sorted(finite(receipt | {"git": git})))


def _model_of(params: Params, record: RunRecord, locked: dict[str, Any]) -> str | None:
    """Return the SHA-256 of the model that the inputs of this run lead to; None where it did not get so far."""
    out = locked.get(_EXPORT, {}).get("writes", {}).get(params.paths.onnx.as_posix())
    if _outcome(record, _EXPORT) not in DONE or not out or not params.paths.onnx.is_file():
        return None
    return sha256_of(params.paths.onnx) if md5_of(params.paths.onnx) == out["md5"] else None


def _outcome(record: RunRecord, stage: str) -> str | None:
    if not record.stages and record.name not in _BROKEN:  # asked of DVC all at once
        return "Up to date"
    return next((run.outcome for run in record.stages if run.name == stage), None)


def _test_figures(params: Params) -> dict[str, Any] | None:
    try:
        test = read_json(params.paths.reports / "metrics.json", "test")["test"]
        return {name: test[name] for name in ("accuracy", "accuracy_low", "accuracy_high", "images")}
    except (FileNotFoundError, Damaged, KeyError, TypeError):
        return None


def _plain(record: RunRecord) -> dict[str, Any]:
    return asdict(record) | {"started": _time(record.started), "ended": _time(record.ended)}


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")


def _sha256(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
        raise Damaged.of(path, "a receipt", f"no plain file, or a large one ({readable_bytes(found.st_size)})")
    receipt = read_json(path, *_KEYS)
    with reading(path, "a receipt as runs write it"):
        if receipt["run"] != path.stem:
            raise ValueError("that of another run")
        _check_form({name: value for name, value in receipt.items() if name != "words"})
        _check_text(str(receipt.get("words", "")).replace("\n", ""))
    return receipt


def _check_form(value: Any, depth: int = 0) -> None:
    """Raise ValueError if a text is long or of several lines: a receipt may come from a pushed branch."""
    if depth > _DEEPEST:
        raise ValueError("values within values")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict | list):
        for each in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_form(each, depth + 1)


def _check_text(text: str) -> None:
    if len(text) > _LONGEST or safe_text(text) != text or "\n" in text:
        raise ValueError(f"a text that no run writes: {printable(text)}")


def _read_or_none(path: Path) -> dict[str, Any] | None:
    try:
        return _read(path)
    except (FileNotFoundError, Damaged):
        return None


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list | tuple) else value
