"""Kill -9 of nights: after any kill of anything, the run has its right state and the next planned run ends as if none.

    python -m tests.stress.night_kills [--kills 100] [--minutes 60] [--seed 0] [--real] [--signals]

A small project under `regraft serve`. Its photos change by one, so that every stage has to run, and a planned run
begins. At a step and a change of a disk drawn by chance it stands still, and the process of the run, the worker, the
server, `regraft serve`, or all of them at once as in a power cut, is killed. Where `regraft serve` is gone it is
started again; nothing else is done by hand. The next planned run must end with a verdict; models,
production and dvc.lock must be those of an undisturbed run; the history must have a row of the killed run; no process
may be left. With --signals they get SIGTERM or SIGINT: the run is Cancelled, in words that name the stage. The last
lines are a table and one JSON object. Exit status 1 if anything is not so.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from subprocess import TimeoutExpired

import psutil

from tasks.runs.prefect_api import ServerAway
from tests.stress.night_rounds import VERDICTS, Followed, Follower, Round, right_states, table, undisturbed
from tests.stress.processes import kill, processes_in, words_of
from tests.stress.served_project import FINAL, STAGES, ServedProject, wait_for
from tests.support.machine import describe_machine

PLACES = ["start", "record_data", *STAGES, "between", "promote_model", "end"]
KILLS = ["flow", "worker", "server", "all", "serve"]
_MOST_KILLS = 4  # until a run may end
SIGNALS = ["flow TERM", "flow INT", "worker TERM", "worker INT", "serve TERM", "serve INT", "cancelled in the UI"]
_PATIENCE = 300.0
_CHANGES = {"start": 40, "end": 30, "promote_model": 40}  # of a disk; a step that is no stage; else:
_CHANGES_OF_A_STAGE = 25


class Nights:
    """One to four kills, and one recovery, again and again."""

    def __init__(self, folder: Path, *, is_toy: bool, seed: int) -> None:
        self.project, self.random = ServedProject(folder, is_toy=is_toy), random.Random(seed)
        self.reference, self.rounds = undisturbed(self.project), list[Round]()
        self.follower = Follower(self.project)
        self.project.serve()
        self.follower.start()
        self._which = "b"

    def run(self, victims: list[str], kills: int, minutes: float) -> list[Round]:
        """Kill until so many kills are done, or the time is over."""
        end, left = time.monotonic() + 60 * minutes, list[tuple[str, str]]()
        while sum(each.killed for each in self.rounds) < kills and time.monotonic() < end:
            if len(left) < _MOST_KILLS:
                cells = [(victim, place) for victim in victims for place in PLACES]
                left += self.random.sample(cells, len(cells))
            rounds = [Round(*left.pop()) for _ in range(self.random.randint(1, _MOST_KILLS))]
            # In the order of the stages: a run goes on to the next kill, or the next run does.
            self._night(sorted(rounds, key=lambda each: PLACES.index(each.goal)))
        self._await_states()
        return self.rounds

    def _night(self, rounds: list[Round]) -> None:
        """Kill one to four times while runs try to do what is to be done; then one may end."""
        self.rounds += rounds
        self._which = "a" if self._which == "b" else "b"
        self.project.use_photos(self._which)
        self.project.forget_results(store=self.random.random() < 0.5)
        try:
            left = rounds
            while left:
                left = self._kill_in_a_run(left)
            self.project.forget_orders()
            self._recover(rounds)
        except (AssertionError, OSError, KeyError, ServerAway, psutil.NoSuchProcess, TimeoutExpired) as error:
            rounds[-1].problems.append(f"{type(error).__name__}: {error}"[:3000])
            self._start_afresh()
        for each in rounds:
            _tell(each)

    def _kill_in_a_run(self, rounds: list[Round]) -> list[Round]:
        """Begin a run, and kill until it ends; return what is left to be killed."""
        self.project.hold([self._order(each.goal) for each in rounds])
        followed = Followed(self.project.plan_run())
        for number, each in enumerate(rounds):
            wait_for(lambda: self.project.held or self._has_ended(followed.run), _PATIENCE)
            held = self.project.held
            if held is None:  # it has ended
                return rounds[number:] if followed.struck else []
            if held.order > number:  # it went past that place before it stood still
                continue
            each.where, each.killed, each.row, each.followed = held.where, True, self.project.run_of(held.pid), followed
            followed.pid, followed.since = held.pid, time.monotonic()
            followed.struck.append((each.victim, each.where))
            if followed not in self.follower.runs:
                self.follower.runs.append(followed)
            self._strike(each, held.pid, followed.run)
            if each.ends_the_run:
                return rounds[number + 1 :]
        return []

    def _order(self, goal: str) -> tuple[str, int]:
        if goal == "between":
            return f"after {self.random.choice(STAGES)}", self.random.randrange(3)
        return goal, self.random.randrange(_CHANGES.get(goal, _CHANGES_OF_A_STAGE))

    def _strike(self, each: Round, pid: int, planned: str) -> None:
        victim, _, name = each.victim.partition(" ")
        number = {"TERM": signal.SIGTERM, "INT": signal.SIGINT}.get(name, signal.SIGKILL)
        assert self.project.served
        serve = self.project.served.process
        if victim == "all":
            self.project.kill_all()
        elif victim == "cancelled":
            state = {"type": "CANCELLING", "name": "Cancelling"}
            self.project.api.post(f"flow_runs/{planned}/set_state", {"state": state, "force": False})
        elif victim == "serve":
            kill(serve.pid, number)
        elif victim == "flow":
            kill(pid, number)
        elif part := self.project.part(victim):
            kill(part.pid, number)
        time.sleep(self.random.choice([0, 0, 1, 5]) if victim == "server" else 0.2)
        if each.where == "end":
            self.project.go_on()  # nothing interrupts that
        if number != signal.SIGKILL or victim == "cancelled":
            wait_for(lambda: not psutil.pid_exists(pid), 60)  # what is held is interrupted
        self.project.go_on()  # `regraft serve` waits for it
        if victim in ("all", "serve"):
            serve.wait(60)
            wait_for(lambda: not self._of_serve(), 60)
            self.project.serve()

    def _of_serve(self) -> list[psutil.Process]:
        """What is left of a `regraft serve` that is gone, but for runs."""
        names = ("flows.prefect_server.child", "flows.prefect_server.guarded_server")
        return [each for each in processes_in(self.project.root) if any(name in words_of(each) for name in names)]

    def _recover(self, rounds: list[Round]) -> None:
        """Let the next planned run end, and compare."""
        each, began, planned = rounds[-1], time.monotonic(), list[str]()
        wait_for(lambda: planned.append(self.project.plan_run()) is None, _PATIENCE)
        if not wait_for(lambda: self._has_ended(planned[0]), 2 * _PATIENCE):
            each.problems.append("the next planned run did not end")
            return
        state = self.project.state_of(planned[0])
        each.recovery, each.recovery_seconds = state["name"], time.monotonic() - began
        if state["name"] not in VERDICTS:
            each.problems.append(f"the next run is {state['name']}: {state['message']}")
        now, then = self.project.state(), self.reference[self._which]
        each.problems += [f"{name}: {now.get(name)}, not {then[name]}" for name in then if now.get(name) != then[name]]
        rows = {row.run for row in self.project.rows()}
        each.problems += [f"the history has no row of {one.row}" for one in rounds if one.row and one.row not in rows]
        if not wait_for(lambda: not self.project.orphans(), 60):
            each.problems.append(f"left over: {self.project.orphans()}")
        for one in rounds:
            one.recovery, one.recovery_seconds, one.problems = each.recovery, each.recovery_seconds, each.problems

    def _has_ended(self, run: str) -> bool:
        return self.project.state_of(run)["type"] in FINAL

    def _start_afresh(self) -> None:
        """After a problem, so that the next rounds tell something."""
        self.project.go_on()
        self.project.kill_all()
        self.project.serve()

    def _await_states(self) -> None:
        """Wait for the states of all killed runs, and judge them."""
        killed = [(each, each.followed) for each in self.rounds if each.followed]
        wait_for(lambda: all(run.state in right_states(run) for _, run in killed), _PATIENCE)
        for each, run in killed:
            if run.state not in right_states(run):
                each.problems.append(
                    f"the run is {run.states}, expected {sorted(right_states(run))}; killed: {run.struck}"
                )
            is_told = each.where not in STAGES or each.where in run.message
            if " " in each.victim and run.state == "Cancelled" and not is_told:
                each.problems.append(f"words without the stage: {run.message}")


def _tell(each: Round) -> None:
    print(json.dumps(asdict(each)), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.night_kills", description="Kills of nights.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no further one is begun")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed, and when")
    parser.add_argument("--real", action="store_true", help="the real stages; without it toys in their place")
    parser.add_argument("--signals", action="store_true", help="SIGTERM and SIGINT in place of kill -9")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    with tempfile.TemporaryDirectory(prefix="regraft-nights-") as folder:
        print(describe_machine())
        nights = Nights(Path(folder), is_toy=not arguments.real, seed=arguments.seed)
        try:
            rounds = nights.run(SIGNALS if arguments.signals else KILLS, arguments.kills, arguments.minutes)
        finally:
            nights.project.kill_all()
    problems = sorted({problem for each in rounds for problem in each.problems})
    print(table(rounds))
    print(json.dumps({"kills": sum(each.killed for each in rounds), "rounds": len(rounds), "problems": problems}))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
