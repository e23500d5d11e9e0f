"""Kill -9 of the training stages at random moments: does the next run end in the same bytes?

    python -m tests.stress.training_kills [DIR] [--kills 20] [--stages fine_tune]

DIR holds labelled photos; without it, handwritten digits. `fine_tune` is a warm run: one photo in thirty joins after
the base was trained. An undisturbed run is the reference. Exit status 1 if any later run gives another model, report
or learning curve, or leaves a checkpoint behind.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from regraft.converters.demo_data import write_digits
from regraft.core.files import sha256_of
from tests.support.machine import describe_machine
from tests.support.pipeline import ROOT, run_stage, stages_folder

# Small images and random weights: an epoch takes less than a second, as long as its checkpoint.
_SETTINGS = ["backbone.weights=null", "backbone.image_size=64", "fine_tune.epochs=8"]
_RESULTS = {
    "train_head": ("models/head.npz", "reports/head.json", "reports/leaderboard.csv", "reports/head_curve.csv"),
    "train_base": ("models/base.npz", "reports/base_training.json", "reports/base_curve.csv"),
    "fine_tune": ("models/model.npz", "reports/fine_tune.json", "reports/fine_tune_curve.csv"),
}
_CHECKPOINTS = {"train_head": "none", "train_base": "base", "fine_tune": "fine_tune"}  # folders in build/
_JOINS = 30  # one photo in so many joins after the base was trained
_MOST_KILLS_IN_A_ROW = 4
_WAITING = 0.6  # share of the kills of a fine-tuning that wait for checkpoints
_MOST_CHECKPOINTS = 3  # that such a kill waits for
_SOON = 0.02  # seconds after the last of them, at most


@dataclass(slots=True)
class Tally:
    """What was done, and what was found; `problems` must stay empty."""

    kills: int = 0
    kills_with_a_checkpoint: int = 0  # the next run had something to go on from
    kills_while_one_was_written: int = 0
    completed_runs: int = 0
    problems: list[str] = field(default_factory=list)


def make_project(folder: Path, raw: Path, settings: list[str]) -> Path:
    """Make a project in which everything before the head has been done, and what is trained before a warm run."""
    photos = folder.with_name("photos")
    joining = sorted(path.relative_to(raw) for path in raw.rglob("*") if path.is_file())[::_JOINS]
    shutil.copytree(raw, photos)
    for path in joining:
        (photos / path).unlink()
    project = stages_folder(folder, photos, settings)
    before = ("validate_data", "preprocess", "cache_features", "train_head", "choose_base", "train_base")
    for stage in before:
        run_stage(stage, project, log=project / "log.txt")
    for path in joining:
        shutil.copy(raw / path, photos / path)
    for stage in before[:3]:
        run_stage(stage, project, log=project / "log.txt")
    return project


def prove(stage: str, project: Path, *, kills: int, seed: int) -> Tally:
    """Kill a stage until so many kills are done, and let a run complete after every few."""
    tally, random = Tally(), np.random.default_rng(seed)
    began = time.monotonic()
    run_stage(stage, project, log=project / "log.txt")
    seconds = time.monotonic() - began
    expected = _results(stage, project)
    while tally.kills < kills:
        for path in _RESULTS[stage]:
            (project / path).unlink(missing_ok=True)
        for _ in range(random.integers(1, _MOST_KILLS_IN_A_ROW + 1)):
            if tally.kills < kills:
                waits = stage != "train_head" and random.random() < _WAITING
                checkpoints = int(random.integers(1, _MOST_CHECKPOINTS + 1)) if waits else 0
                moment = random.uniform(0, _SOON if waits else seconds)
                _kill(stage, project, moment, tally, checkpoints=checkpoints)
        run_stage(stage, project, log=project / "log.txt")
        tally.completed_runs += 1
        if _results(stage, project) != expected:
            tally.problems.append(f"after {tally.kills} kills another result")
        if (project / "build" / _CHECKPOINTS[stage]).exists():
            tally.problems.append(f"after {tally.kills} kills a checkpoint was left")
    return tally


def _kill(stage: str, project: Path, after_seconds: float, tally: Tally, *, checkpoints: int) -> None:
    """Start the stage and kill it after so many seconds, unless it has ended.

    Args:
        stage: its name.
        project: from `make_project`.
        after_seconds: after the last of the `checkpoints`, or of the start if it waits for none.
        tally: counts it.
        checkpoints: that it waits for: most of a small run is its start, and a kill in there says little.
    """
    with (project / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"tasks.{stage}"],
            cwd=project,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
        for _ in range(checkpoints):
            before = _checkpoint(stage, project)
            while process.poll() is None and _checkpoint(stage, project) == before:
                time.sleep(0.002)
        time.sleep(after_seconds)
        process.kill()
        if process.wait() == 0:
            return
    tally.kills += 1
    tally.kills_with_a_checkpoint += _checkpoint(stage, project) is not None
    temporary = f".*.{process.pid}-*.tmp*"
    tally.kills_while_one_was_written += bool(list((project / "build" / _CHECKPOINTS[stage]).glob(temporary)))


def _checkpoint(stage: str, project: Path) -> int | None:
    """Return when the checkpoint was written, in nanoseconds, or None if there is none."""
    try:
        times = [path.stat().st_mtime_ns for path in (project / "build" / _CHECKPOINTS[stage]).glob("[!.]*.npz")]
    except FileNotFoundError:  # it was removed meanwhile
        return None
    return max(times, default=None)


def _results(stage: str, project: Path) -> list[str]:
    return [sha256_of(project / path) for path in _RESULTS[stage]]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress.training_kills", description="Training under kills at random moments."
    )
    parser.add_argument("photos", type=Path, nargs="?", help="a folder of labelled photos; by default digits")
    parser.add_argument("--kills", type=int, default=20, help="of each stage")
    parser.add_argument("--stages", nargs="+", choices=_RESULTS, default=list(_RESULTS), metavar="STAGE")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regraft-training-kills-") as temporary:
        folder = Path(temporary)
        raw = arguments.photos or folder / "digits"
        if not arguments.photos:
            write_digits(raw)
        print(describe_machine())
        project = make_project(folder / "project", raw, _SETTINGS)
        kills, seed = arguments.kills, arguments.seed
        tallies = {stage: prove(stage, project, kills=kills, seed=seed) for stage in arguments.stages}
    print(json.dumps({stage: asdict(tally) for stage, tally in tallies.items()}))
    if any(tally.problems for tally in tallies.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
