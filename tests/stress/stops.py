"""Ctrl-C and SIGTERM in every stage: how long until the run has ended, and does the next one end in the same bytes?

    python -m tests.stress.stops [--rounds 2] [--seed 0] [--runner "regraft retrain"]

A project of the real stages on small photos, enough of them that a stage takes seconds. Ctrl-C is SIGINT to all
processes, as a terminal sends it; SIGTERM goes to the first process alone, as systemd and Docker send it. After each
the next run must end well, with every output as an undisturbed run left it. Exit status 1 if a run took longer than
`--seconds` to end, had another exit status than 130 or 143, printed a traceback, or left a process behind.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import psutil

from tests.stress.killed_project import ALL_STAGES, KilledProject, Run, make_project
from tests.support.machine import describe_machine

RUNNERS = ["flow", "regraft retrain", "dvc repro"]
_SETTINGS = ["fine_tune.epochs=6"]
_SETTINGS += ["cache_features.views=2"]
_PER_CLASS = 100
_MOST_SECONDS = 2.0  # after a stage began
_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
_OF_DVC = {255, -signal.SIGTERM}  # what `dvc` ends with where a stage was stopped, and where it was told itself
_STAGES = [stage for stage in ALL_STAGES if stage != "record_code"]
_PATIENCE_SECONDS, _LOOK_SECONDS = 300.0, 0.01


@dataclass(frozen=True, slots=True)
class Stop:
    """What came of one signal."""

    stage: str
    runner: str
    signal: str
    after: float  # seconds, since the stage began
    seconds: float  # until the process had ended
    status: int
    left: int  # processes that were there five seconds later
    said: str  # the last line
    has_traceback: bool

    def row(self) -> str:
        """Return a row of a table."""
        moments = f"{self.after:.1f} | {self.seconds:.1f}"
        return (
            f"| {self.stage} | {self.runner} | {self.signal} | {moments} | {self.status} | {self.left} | {self.said} |"
        )

    def problems(self, most_seconds: float) -> list[str]:
        """Return what should not be so."""
        statuses = {_STATUS[signal.Signals[self.signal]]} | (_OF_DVC if self.runner == "dvc repro" else set())
        found = {
            f"took {self.seconds:.1f} s": self.seconds > most_seconds,
            f"status {self.status}": self.status not in statuses,
            "a traceback": self.has_traceback,
            f"{self.left} processes are left": self.left > 0,
        }
        return [f"{self.stage}, {self.runner}, {self.signal}: {what}" for what, is_so in found.items() if is_so]


def stop(project: KilledProject, stage: str, runner: str, number: signal.Signals, after: float) -> Stop | None:
    """Start a run, and send it a signal so many seconds after a stage began; None if it was over before."""
    _lock(project, stage).unlink(missing_ok=True)
    run = project.start(runner)
    if not _wait_for(stage, project, run):
        run.wait()
        return None
    time.sleep(after)
    children = run.descendants()
    if not run.is_running:
        return None
    sent = time.perf_counter()
    if number == signal.SIGINT:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, number)
        for child in children:  # those in sessions of their own get none from a terminal either
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getpgid(child.pid) not in (run.pid, child.pid):
                    child.send_signal(number)
    else:
        os.kill(run.pid, number)
    status = run.wait()
    seconds = time.perf_counter() - sent
    _, left = psutil.wait_procs(children, timeout=5)
    output = run.output
    lines = [line for line in output.splitlines() if line.strip()]
    return Stop(
        stage, runner, number.name, after, seconds, status, len(left), lines[-1] if lines else "", "Traceback" in output
    )


def sweep(project: KilledProject, runner: str, number: signal.Signals, delays: dict[str, float]) -> Iterator[Stop]:
    """Let nothing be known, and stop stages once on the way to the end, so many seconds after they began."""
    _forget_all(project)
    for stage in delays:
        if came := stop(project, stage, runner, number, delays[stage]):
            yield came


def _forget_all(project: KilledProject) -> None:
    project.forget(_STAGES)
    shutil.rmtree(project.root / "build" / "store", ignore_errors=True)
    for checkpoints in ("base", "fine_tune"):
        shutil.rmtree(project.root / "build" / checkpoints, ignore_errors=True)


def _wait_for(stage: str, project: KilledProject, run: Run) -> bool:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not _lock(project, stage).exists():
        if not run.is_running or time.monotonic() > end:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _lock(project: KilledProject, stage: str) -> Path:
    return project.root / ".dvc" / "tmp" / "regraft" / f"{stage}.lock"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.stops", description="Ctrl-C and SIGTERM.")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long a run may take to end")
    parser.add_argument("--runner", choices=RUNNERS, action="append", help="one of the runners; without it all")
    parser.add_argument("--stage", choices=_STAGES, action="append", help="one of the stages; without it all")
    parser.add_argument("--signal", choices=[each.name for each in _STATUS], action="append")
    options = parser.parse_args()
    numbers = [signal.Signals[name] for name in options.signal or [each.name for each in _STATUS]]
    print(describe_machine())
    print("| stage | runner | signal | after | seconds | status | left | said |\n|---|---|---|---|---|---|---|---|")
    problems = []
    with tempfile.TemporaryDirectory(prefix="regraft-stops-") as temporary:
        project, choose = make_project(Path(temporary), _SETTINGS, _PER_CLASS), random.Random(options.seed)
        project.succeed("flow")
        project.forget(["validate_data", "check_features"])  # what they compare with is in production now
        project.succeed("flow")
        expected = project.state()
        for _, runner, number in product(range(options.rounds), options.runner or RUNNERS, numbers):
            delays = {stage: choose.uniform(0, _MOST_SECONDS) for stage in options.stage or _STAGES}
            for came in sweep(project, runner, number, delays):
                print(came.row(), flush=True)
                problems += came.problems(options.seconds)
            project.succeed("flow")
            state = project.state()
            problems += [
                f"{runner}, {number.name}: {name} differs" for name in expected if state[name] != expected[name]
            ]
    print(json.dumps({"problems": problems}))
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
