"""What is known of killed nights: each kill, the states that the server gave to its run, and which are true."""

import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from tasks.runs.prefect_api import ServerAway
from tests.stress.served_project import ServedProject
from tests.support.project import REGRAFT

VERDICTS = {"Promoted", "Promoted with warnings", "Undecided", "Refused", "Already in production", "Nothing new"}


@dataclass
class Followed:
    """A planned run, as the server knows it."""

    run: str
    since: float = 0.0  # the last kill
    pid: int = 0
    struck: list[tuple[str, str]] = field(default_factory=list)  # what was killed in it, and where it was then
    is_gone_at: float = 0.0  # its process
    state: str = ""
    type: str = ""
    message: str = ""
    changed: float = 0.0
    states: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the kill, or from the end of the process if that came later, to the state that it has now."""
        return max(0.0, self.changed - max(self.since, self.is_gone_at))


class Follower(threading.Thread):
    """Asks the server for the states of killed runs, twice a second."""

    def __init__(self, project: ServedProject) -> None:
        super().__init__(daemon=True)
        self.project, self.runs = project, list[Followed]()

    def run(self) -> None:
        """Ask until the process ends."""
        while True:
            for each in list(self.runs):
                self._look(each)
            time.sleep(0.5)

    def _look(self, run: Followed) -> None:
        if not run.is_gone_at and not psutil.pid_exists(run.pid):
            run.is_gone_at = time.monotonic()
        with suppress(ServerAway):
            state = self.project.state_of(run.run)
            if state["name"] != run.state:
                run.state, run.type, run.changed = state["name"], state["type"], time.monotonic()
                run.message = state["message"] or ""
                run.states.append(state["name"])


@dataclass
class Round:
    """One kill, and what came of it."""

    victim: str
    goal: str
    where: str = ""
    killed: bool = False
    recovery: str = ""
    recovery_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    followed: Followed | None = None
    row: str | None = None

    @property
    def ends_the_run(self) -> bool:
        """Whether a run cannot go on after that."""
        return self.victim in ("flow", "all") or " " in self.victim


def undisturbed(project: ServedProject) -> dict[str, dict[str, object]]:
    """Return the state after an undisturbed run on either set of photos: the second one, when production is there."""
    found: dict[str, dict[str, object]] = {}
    for which in ("a", "b", "a", "b"):
        project.use_photos(which)
        project.forget_results(store=True)
        ended = project.run(*REGRAFT, "retrain")
        assert ended.status in (0, 2), ended.output  # 2: the gate refused the model, and production stays
        before, found[which] = found.get(which), project.state()
        if before and before["model.onnx"] != found[which]["model.onnx"]:
            raise AssertionError("undisturbed runs on the same photos differ")
    if found["a"]["model.onnx"] == found["b"]["model.onnx"]:
        raise AssertionError("the two sets of photos give one model")
    return found


def right_states(run: Followed) -> set[str]:
    """The names of states that tell the truth about a run."""
    victim, where = run.struck[-1]
    is_done = where in ("end", "write_report", "after write_report")
    if " " in victim:
        # A worker that is told to end kills its runs; one that had not begun to work is taken for crashed.
        ends_hard = where == "start" or victim.startswith("worker")
        return (
            {"Cancelled"} | (VERDICTS if is_done or where == "start" else set()) | ({"Crashed"} if ends_hard else set())
        )
    if victim in ("flow", "all"):
        return {"Crashed"} | (VERDICTS if is_done else set())
    if victim == "serve":  # what it started is told to stop
        return {"Crashed", "Cancelled"} | VERDICTS
    return VERDICTS | ({"Crashed"} if where == "start" else set())


def table(rounds: list[Round]) -> str:
    """Return what was killed where: kills, recovered, equal bytes, longest seconds to the right state."""
    cells: dict[tuple[str, str], list[Round]] = defaultdict(list)
    for each in rounds:
        if each.killed:
            cells[each.victim, "between" if each.where.startswith("after ") else each.where].append(each)
    lines = ["| killed | in | kills | recovered | equal bytes | states | longest seconds to it |"]
    lines.append("|---|---|---|---|---|---|---|")
    for (victim, where), found in sorted(cells.items()):
        recovered = sum(each.recovery in VERDICTS for each in found)
        equal = sum(each.recovery in VERDICTS and not each.problems for each in found)
        states = Counter(each.followed.state for each in found if each.followed)
        longest = max(each.followed.seconds for each in found if each.followed)
        words = ", ".join(f"{name} {count}" for name, count in states.items())
        lines.append(f"| {victim} | {where} | {len(found)} | {recovered} | {equal} | {words} | {longest:.0f} |")
    return "\n".join(lines)
