"""Runs that are started together: two deployments, `regraft retrain` by hand and `dvc repro`, on a new photo.

    python -m tests.stress.overlap [--rounds 20] [--minutes 60] [--seed 0] [--real]

A small project under `regraft serve`. Each of the four must end well or say clearly why it does not; in the end models,
production and dvc.lock must be those of an undisturbed run, nothing may be left to do, and every run has its row in the
history. What each was told is counted. The last line is one JSON object. Exit status 1 if anything is not so.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.stress.night_rounds import VERDICTS, undisturbed
from tests.stress.served_project import FINAL, ServedProject, wait_for
from tests.support.machine import describe_machine
from tests.support.project import REGRAFT, Command

DEPLOYMENTS = ["retrain-nightly", "retrain-on-new-data"]
BY_HAND = {"regraft retrain": (*REGRAFT, "retrain"), "dvc repro": ("dvc", "repro")}
_PATIENCE = 600.0
_SPREAD_SECONDS = 4.0
# What else a command says than how far it is.
_TOLD = re.compile(
    r"^(Waiting.*|ERROR.*|.* stopped: .*|(?:Already in production|Undecided|Promoted|Nothing new).*)$", re.M
)


class Overlaps:
    """Rounds of four runs that begin together."""

    def __init__(self, folder: Path, *, is_toy: bool, seed: int) -> None:
        self.project, self.random = ServedProject(folder, is_toy=is_toy), random.Random(seed)
        self.reference = undisturbed(self.project)
        self.project.serve()
        self.ends: dict[str, Counter[str]] = {name: Counter() for name in [*DEPLOYMENTS, *BY_HAND]}
        self.told: Counter[str] = Counter()
        self.problems: list[str] = []
        self.longest = 0.0

    def round(self, number: int) -> None:
        """Start the four in some order, within seconds, and look at how they end."""
        which = "ab"[number % 2]
        self.project.use_photos(which)
        self.project.forget_results(store=self.random.random() < 0.5)
        rows, planned, by_hand = len(self.project.rows()), dict[str, str](), dict[str, Command]()
        began, names = time.monotonic(), [*DEPLOYMENTS, *BY_HAND]
        self.random.shuffle(names)
        for name in names:
            if name in BY_HAND:
                by_hand[name] = self.project.start(*BY_HAND[name])
            else:
                planned[name] = self.project.plan_run(name)
            time.sleep(self.random.uniform(0, _SPREAD_SECONDS))
        if not wait_for(
            lambda: all(self.project.state_of(run)["type"] in FINAL for run in planned.values()), _PATIENCE
        ):
            self.problems.append(f"round {number}: a planned run did not end")
        for name, run in planned.items():
            self._judge_planned(f"round {number}: {name}", name, self.project.state_of(run))
        for name, command in by_hand.items():
            self._judge(f"round {number}: {name}", name, command)
        self.longest = max(self.longest, time.monotonic() - began)
        now, then = self.project.state(), self.reference[which]
        self.problems += [
            f"round {number}: {key} is {now.get(key)}, not {then[key]}" for key in then if now.get(key) != then[key]
        ]
        if len(self.project.rows()) != rows + 3:
            self.problems.append(f"round {number}: {len(self.project.rows()) - rows} rows in the history for 3 runs")
        if "up to date" not in (status := self.project.run("dvc", "status").output):
            self.problems.append(f"round {number}: dvc status: {status[-500:]}")

    def _has_ended(self, run: str) -> bool:
        return self.project.state_of(run)["type"] in FINAL

    def _judge_planned(self, what: str, name: str, state: dict[str, Any]) -> None:
        self.ends[name][state["name"]] += 1
        if state["name"] not in VERDICTS:
            self.problems.append(f"{what}: {state['name']}: {state['message']}")

    def _judge(self, what: str, name: str, command: Command) -> None:
        status = command.status
        self.ends[name][f"exit status {status}"] += 1
        told = [line for line in _TOLD.findall(command.output) if line]
        self.told.update(f"{name}: {_without_numbers(line)}" for line in told)
        if "Traceback" in command.output or (status and (name != "dvc repro" or not told)):
            self.problems.append(f"{what}: exit status {status}: {command.output[-1500:]}")


def _without_numbers(line: str) -> str:
    line = re.sub(r"(/\S+)+", "<path>", line)
    return re.sub(r"\d+", "<n>", line)[:200]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.overlap", description="Runs that begin together.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no further one is begun")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="the real stages; without it toys in their place")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regraft-overlap-") as folder:
        print(describe_machine())
        overlaps = Overlaps(Path(folder), is_toy=not arguments.real, seed=arguments.seed)
        end = time.monotonic() + 60 * arguments.minutes
        try:
            for number in range(arguments.rounds):
                if time.monotonic() > end:
                    break
                overlaps.round(number)
                print(f"round {number}: {len(overlaps.problems)} problems", flush=True)
            worker_log = (overlaps.project.root / ".dvc/tmp/regraft/logs/worker.log").read_text()
        finally:
            overlaps.project.kill_all()
    overlaps.told.update(f"planned: {_without_numbers(line)}" for line in re.findall(r"Waiting.*", worker_log))
    for words, times in overlaps.told.most_common():
        print(f"{times:4d} x {words}")
    ends = {name: dict(counted) for name, counted in overlaps.ends.items()}
    print(json.dumps({"ends": ends, "longest_seconds": round(overlaps.longest), "problems": overlaps.problems}))
    sys.exit(bool(overlaps.problems))


if __name__ == "__main__":
    main()
