"""Receipts: one small JSON file per run that says what went in, what came out, in which versions, and what was decided.

    <paths.receipts>/<run>.json

Keys are sorted, one value a line, so that git shows what changed from night to night. No path of this machine, no user
and no host is in it. A run that did nothing, after which everything is as the last receipt says, adds none.
"""

import json
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
from regraft.core.errors import Damaged, RegraftError
from regraft.core.files import finite, md5_of, read_json, sha256_of, write_json, write_text
from regraft.core.provenance import installed_versions
from tasks.dvc_files import data_version, read_locked
from tasks.runs.current_run import RunRecord, without_machine
from tasks.runs.git import NoGit, open_git
from tasks.runs.snapshots import drop_snapshots, keep_snapshot, runs_with_snapshot, take_snapshot

LAST_RUN = Path(".dvc", "tmp", "regraft", "last_run.json")  # the record of the last run, with or without a receipt
KEPT_RUNS = 30  # whose snapshots and pages are kept
DONE = ("Up to date", "Restored", "Recorded", "Ran")  # outcomes of a stage whose outputs are there
MOST_BYTES = 10_000_000  # of a receipt; the usual one has 100,000
RUN = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")
_NOTHING_NEW = ("Already in production", "Completed")  # names of runs that may have had nothing to do
_BROKEN = ("Failed", "Cancelled", "Crashed")  # names of runs that did not come to their end
_AROUND = ("promote_model", "write_report")  # steps that are no stages


def write_receipt(params: Params, record: RunRecord) -> Path:
    """Write the receipt of a run in the current folder, and keep a snapshot of what it was made from.

    Returns:
        Its path; that of the last one where this run did nothing and all is as it says.

    Raises:
        RegraftError: there is no room, or the folder cannot be written to.
    """
    write_json(LAST_RUN, asdict(record) | {"started": _time(record.started), "ended": _time(record.ended)})
    folder, marks = params.paths.receipts, _marks(params)
    before = [run for run in runs_with_receipt(folder) if run != record.run]
    last = _read_or_none(folder / f"{before[-1]}.json") if before else None
    if last and _did_nothing(record, last) and last["marks"] == marks:
        return folder / f"{last['run']}.json"
    receipt = _facts(params, record) | {"marks": marks, "previous": before[-1] if before else None}
    path = folder / f"{record.run}.json"
    revision = snapshot = None
    try:
        if record.name == "Crashed":  # told by the run after it, when photos and code may be others
            raise NoGit("it was killed before it could make one.")
        git = open_git(Path.cwd())
        revision = git.revision()
        snapshot = take_snapshot(git, params, record.run, record.ended)
        _write(path, receipt, revision, snapshot, "")
        keep_snapshot(git, record.run, snapshot, path, record.ended)
        drop_snapshots(git, runs_to_forget(params, runs_with_snapshot(git)))
    except NoGit as error:  # a run whose work is done needs no git
        _write(path, receipt, revision, None, without_machine(str(error)))
    return path


def read_receipt(params: Params, run: str) -> dict[str, Any]:
    """Return the receipt of a run.

    Raises:
        FileNotFoundError, Damaged: there is none, or it is something else than a receipt.
    """
    if not RUN.fullmatch(run):  # a receipt from elsewhere may name anything as the one before it
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
    return name.endswith(".json") and RUN.fullmatch(name.removesuffix(".json")) is not None


def find_run(params: Params, wanted: str | None) -> str:
    """Return the name of a run that has a receipt.

    Args:
        params: all settings.
        wanted: its name or how that begins; -1 is the last one, -2 the one before; None is -1.

    Raises:
        RegraftError: there is none, or more than one.
    """
    runs, wanted = runs_with_receipt(params.paths.receipts), wanted or "-1"
    if not runs:
        raise RegraftError(f"there is no receipt in {params.paths.receipts} yet. Run `regraft retrain` first.")
    if re.fullmatch(r"-[1-9]\d{0,8}", wanted):
        found = runs[int(wanted) :][:1] if int(wanted) >= -len(runs) else []
    else:
        found = [run for run in runs if run == wanted] or [run for run in runs if run.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} runs begin with" if found else "there is no receipt of"
    shown = ", ".join((found or runs)[-5:])
    raise RegraftError(f"{what} {wanted}. Name one run, such as {shown}, or -1 for the last.")


def runs_to_forget(params: Params, runs: Collection[str]) -> list[str]:
    """Return those of some runs whose snapshots are too old, and did not make the model that is in production."""
    old = [run for run in sorted(runs)[:-KEPT_RUNS] if RUN.fullmatch(run)]
    production = _sha256(params.paths.production / "model.onnx") if old else None
    receipts = {run: _read_or_none(params.paths.receipts / f"{run}.json") or {} for run in old}
    return [run for run in old if production is None or receipts[run].get("model") != production]


def last_run() -> dict[str, Any] | None:
    """Return what the last run did, with or without a receipt, by the keys of RunRecord; None if that is not known."""
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


def instruction_set() -> str:
    """Return what decides the arithmetic of a processor: equal bytes are promised on equal ones only."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    except OSError:
        flags = None
    kinds = sorted(flag for flag in (flags[1].split() if flags else []) if re.match(r"(avx|amx|fma|sse4)", flag))
    return " ".join([platform.machine(), *kinds])


def _did_nothing(record: RunRecord, last: dict[str, Any]) -> bool:
    if record.name in _BROKEN or record.name not in (*_NOTHING_NEW, last["name"]):  # refused for the same as before
        return False
    return all(run.outcome == "Up to date" for run in record.stages if run.name not in _AROUND)


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
        "words": record.public_words,
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


def _write(path: Path, receipt: dict[str, Any], revision: str | None, snapshot: str | None, problem: str) -> None:
    git = {"revision": revision, "snapshot": snapshot, "problem": problem}
    text = json.dumps(finite(receipt | {"git": git}), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, f"{text}\n")


def _model_of(params: Params, record: RunRecord, locked: dict[str, Any]) -> str | None:
    """Return the SHA-256 of the model that the inputs of this run lead to; None where it did not get so far."""
    out = locked.get("export_onnx", {}).get("writes", {}).get(params.paths.onnx.as_posix())
    if _outcome(record, "export_onnx") not in DONE or not out or not params.paths.onnx.is_file():
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


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")


def _sha256(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    found = path.lstat()  # it may come from a pushed branch
    if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
        raise Damaged.of(path, "a receipt", "no plain file, or a large one")
    receipt = read_json(path, "run", "name", "stages", "locked", "marks")
    if receipt["run"] != path.stem:
        raise Damaged.of(path, "a receipt", "that of another run")
    return receipt


def _read_or_none(path: Path) -> dict[str, Any] | None:
    try:
        return _read(path)
    except (FileNotFoundError, Damaged):
        return None
