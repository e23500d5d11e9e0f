"""Kill -9 of whole runs: does the next run, by either runner, end well and in the same bytes without a hand?

    python -m tests.stress.run_kills [--kills 400] [--minutes 60] [--seed 0]

A project of the real stages on 72 small photos. Before each kill, what one to three stages know is thrown away; then
`dvc repro`, or what a flow does, is killed while it computes it: the process, its whole group or one child, at a moment
taken from runs before, or while dvc.lock is written. Besides, promotions and rollbacks, `store gc` and the renewal of a
lease are killed. After each kill the next run, by a runner drawn by chance, must end well, with every output,
model.onnx among them, and dvc.lock as an undisturbed run left them, a clean `dvc status`, and production a valid model.
Some of the flows are real ones, `regraft retrain` against a Prefect server. Exit status 1 if anything is not so.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from regraft.production.registry import Production
from tests.stress.killed_project import ALL_STAGES, KilledProject, Run, make_project
from tests.support.machine import describe_machine
from tests.support.prefect_server import running_server

RUNNERS = ["dvc repro", "flow"]
# Of 100 kills; the second and third kind kill a run of either runner.
KINDS = {"run": 60, "dvc.lock": 24, "promotion": 8, "gc": 4, "lease": 4}
_REAL_FLOWS = 0.05  # share of the flows that run with Prefect around them, which takes ten times as long
_REWRITING_SECONDS = 0.05


@dataclass(slots=True)
class Tally:
    """What was done, and what was found; `problems` must stay empty."""

    kills: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    by_runner: Counter[str] = field(default_factory=Counter)
    by_stage: Counter[str] = field(default_factory=Counter)
    by_victim: Counter[str] = field(default_factory=Counter)
    half_written: int = 0  # kills that left half of a new dvc.lock beside the old one
    ended_before: int = 0  # runs that a kill came too late for
    recovered_by: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Kills:
    """Rounds of one kill and one recovery each."""

    def __init__(self, project: KilledProject, *, seed: int, api: str | None) -> None:
        self.project, self.api = project, api
        self.random, self.tally = random.Random(seed), Tally()
        self.seconds = self._measure()
        self.reference = project.state()
        folder = project.root.parent / "promotions"
        folder.mkdir()
        for number in range(2):
            model = onnx.load(project.root / "models" / "model.onnx")
            model.doc_string = f"model {number}"
            onnx.save(model, folder / f"{number}.onnx")

    def _measure(self) -> dict[str, dict[str, float]]:
        """Let both runners run undisturbed; return the seconds of each stage, the first one's with the run's start."""
        ends = [time.time()]
        self.project.succeed("flow")
        ends += [max(path.stat().st_mtime for path in self.project.outputs([stage])) for stage in ALL_STAGES]
        flow = {stage: end - start for stage, start, end in zip(ALL_STAGES, ends, ends[1:], strict=False)}
        compared = ["validate_data", "check_features"]  # with production, which there is now
        self.project.forget(compared)
        more = max(0.0, self.project.succeed("dvc repro") / len(compared) - flow["validate_data"])
        return {"flow": flow, "dvc repro": {stage: seconds + more for stage, seconds in flow.items()}}

    def run(self, kills: int, *, seconds: float = float("inf")) -> Tally:
        """Kill until so many kills are done, or the time is over."""
        kinds, end = self._kinds(), time.perf_counter() + seconds
        while self.tally.kills < kills and time.perf_counter() < end:
            kind = next(kinds)
            killed = self._kill_run(kind) if kind in ("run", "dvc.lock") else self._kill_beside(kind)
            self.tally.kills += killed
            self.tally.by_kind[kind] += killed
            self._recover(kind if killed else f"{kind}, too late")
            print(f"{self.tally.kills} of {kills} kills, {len(self.tally.problems)} problems", file=sys.stderr)
        return self.tally

    def _kinds(self) -> Iterator[str]:
        while True:
            kinds = [kind for kind, share in KINDS.items() for _ in range(share)]
            self.random.shuffle(kinds)
            yield from kinds

    def _start(self, runner: str) -> Run:
        if runner == "flow" and self.api and self.random.random() < _REAL_FLOWS:
            return self.project.start("regraft retrain", PREFECT_API_URL=self.api)
        return self.project.start(runner)

    def _kill_run(self, kind: str) -> bool:
        """Kill a run that computes one to three stages."""
        runner = self.random.choice(RUNNERS)
        # Long stages less often: most moments of a kill are in them anyway, where several are computed.
        weights = [1 / (1 + self.seconds[runner][stage]) for stage in ALL_STAGES]
        first = ALL_STAGES.index(self.random.choices(ALL_STAGES, weights)[0])
        stages = ALL_STAGES[first : first + self.random.choice([1, 1, 1, 2, 3])]
        self.project.forget(stages)
        if "cache_features" in stages and self.random.random() < 0.5:
            for shard in self.project.root.glob("build/store/*-*/*.arrow"):
                shard.unlink()
        run = self._start(runner)
        if kind == "dvc.lock":
            self._wait_until_dvc_lock_is_written(run)
        else:
            start = self.seconds[runner]["record_code"]
            end = run.started + self.random.uniform(0, start + sum(self.seconds[runner][stage] for stage in stages))
            while run.is_running and time.perf_counter() < end:
                time.sleep(0.002)
        how = self.random.choice(["process", "group", "child"] if kind == "run" else ["process", "group"])
        if not run.kill(how, self.random):
            self.tally.ended_before += 1
            self.seconds[runner] |= {stage: 0.6 * self.seconds[runner][stage] for stage in stages}
            if status := run.wait():
                self._note(f"{runner} of {stages} failed with {status}: {run.output[-1500:]}")
            return False
        self.tally.by_runner[runner] += 1
        self.tally.by_victim[how] += 1
        self.tally.by_stage.update(stages)
        self.tally.half_written += self.project.lock.with_name("dvc.lock.tmp").exists()
        return True

    def _wait_until_dvc_lock_is_written(self, run: Run) -> None:
        """Wait for the beginning of the next rewriting, in whichever way DVC does that, and for a part of it."""
        lock, temporary = self.project.lock, self.project.lock.with_name("dvc.lock.tmp")
        temporary.unlink(missing_ok=True)
        before = lock.stat().st_mtime_ns
        while run.is_running and not temporary.exists() and lock.stat().st_mtime_ns == before:
            time.sleep(0.0003)
        time.sleep(self.random.uniform(0, _REWRITING_SECONDS))

    def _kill_beside(self, kind: str) -> bool:
        """Kill a promotion or rollback, `store gc` or the renewal of a lease."""
        store, production = self.project.root / "build" / "store", self.project.root.parent / "promotions/production"
        garbage = store / "features-0123456789abcdef"
        if kind == "gc":
            shutil.rmtree(garbage, ignore_errors=True)
            for folder in [*store.glob("features-*")]:
                shutil.copytree(folder, garbage, dirs_exist_ok=True)
        run = self.project.start(kind)
        time.sleep(self.random.uniform(0.02, 1.5))
        killed = run.kill("group", self.random)
        if not killed and (status := run.wait()):
            self._note(f"{kind} failed with {status}: {run.output[-1500:]}")
        if kind == "promotion":
            standing = Production(production).standing()
            if standing.problem or (production.exists() and not standing.digest and any(production.glob("*.onnx"))):
                self._note(f"after a killed promotion: {standing}")
        elif self.random.random() < 0.5:
            # Nobody waits for a process that is dead.
            self._expect_success(self.project.start("gc"), f"gc after {kind}")
        return killed

    def _recover(self, what: str) -> None:
        """Let the next run complete, and compare."""
        runner = self.random.choice(RUNNERS)
        self._expect_success(self._start(runner), f"{runner} after {what}")
        self.tally.recovered_by[runner] += 1
        state = self.project.state()
        for name, expected in self.reference.items():
            if state.get(name) != expected:
                self._note(f"{runner} after {what}: {name} is {state.get(name)}, and was {expected}")
        status = self.project.start("status")
        if status.wait() or json.loads(status.output.splitlines()[-1]):
            self._note(f"dvc status after {runner} after {what}: {status.output[-500:]}")

    def _note(self, problem: str) -> None:
        self.tally.problems.append(problem)
        print(problem, file=sys.stderr)

    def _expect_success(self, run: Run, what: str) -> None:
        if status := run.wait():
            self._note(f"{what} ended with {status}: {run.output[-1500:]}")


def prove(folder: Path, *, kills: int, minutes: float, seed: int) -> Tally:
    """Make the project, and kill, with a Prefect server for the flows that need one."""
    project = make_project(folder)
    with running_server(folder, project.environment) as server:
        return Kills(project, seed=seed, api=server.api).run(kills, seconds=60 * minutes)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.run_kills", description="Kills of whole runs.")
    parser.add_argument("--kills", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no further one is begun")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed, and when")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regraft-run-kills-") as temporary:
        print(describe_machine())
        start = time.perf_counter()
        tally = prove(Path(temporary), kills=arguments.kills, minutes=arguments.minutes, seed=arguments.seed)
    seconds = time.perf_counter() - start
    print(json.dumps({name: getattr(tally, name) for name in tally.__slots__} | {"seconds": round(seconds)}))
    if tally.problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
