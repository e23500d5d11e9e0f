"""Edits, runs of both runners, kills, gc, promotions and rollbacks in any order: what must hold, holds after each.

    python -m tests.stress.state_machine [--steps 400] [--seed 0]

Plays on a toy of all eight stages (`tests.support.eight_stages`) and knows what must come out: a run that nobody
disturbs ends well, whatever was before it; model.onnx is a function of photos and params; production is a sound model
that the log names last; what was rolled back from comes back by hand only; what one runner has done, the other does not
repeat; gc removes nothing that the present features need. Exit status 1 and the steps, as a program, if not.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from regraft.core.files import sha256_of
from tests.stress.life_model import FLOW, NAMES, PARAMS, REPRO, Model, prepare
from tests.support.eight_stages import CLASSES, STAGES, EightStages, temporary_folder
from tests.support.machine import describe_machine

_FEWEST = 9  # photos that a class and a split need, more or less
_STEPS_OF_A_LIFE = 20
_KEEP = 2  # promote.keep of the toy
_LATEST_STEP = 700  # of a run, before which it is killed; most have fewer
_runner = st.sampled_from([FLOW, FLOW, REPRO])
_class = st.sampled_from(list(CLASSES))
_some_step = st.integers(1, _LATEST_STEP)


@contextmanager
def finished_project(folder: Path) -> Iterator[EightStages]:
    """Make a project in which everything has run once, and keep it so for `reset`."""
    project = EightStages(folder)
    try:
        prepare(project)
        ended = project.do(FLOW, promote=True)
        assert ended.status == 0, ended.output
        project.keep()
        yield project
    finally:
        project.end()


class Life(Model):
    """What may happen to a project."""

    @initialize(has_run=st.booleans())
    def begin(self, has_run: bool) -> None:
        self.project.reset(finished=has_run)
        if has_run:
            self.is_done, self.there = True, sha256_of(self.exported)
            self.line = [self.there]
        else:
            prepare(self.project)

    # Edits.

    @rule(name=st.sampled_from(NAMES), class_name=_class, colour=_class)
    def add_photo(self, name: str, class_name: str, colour: str) -> None:
        self.count("edit")
        self.project.photo(name, class_name, colour)
        self.photos[name] = (class_name, colour)
        self.is_done = False

    @precondition(lambda self: len(self.photos) > _FEWEST)
    @rule(data=st.data())
    def remove_photo(self, data: st.DataObject) -> None:
        self.count("edit")
        name = data.draw(st.sampled_from(sorted(self.photos)))
        self.project.remove_photo(name)
        del self.photos[name]
        self.is_done = False

    @rule(name=st.sampled_from(list(PARAMS)), data=st.data())
    def edit_param(self, name: str, data: st.DataObject) -> None:
        self.count("edit")
        value = data.draw(st.sampled_from(PARAMS[name]))
        self.project.set_param(name, value)
        self.params[name] = value
        self.is_done = False

    @rule(path=st.sampled_from(["models/model.onnx", "build/features.arrow", "build/store", "reports/metrics.json"]))
    def lose(self, path: str) -> None:
        """Remove a result, or the whole store."""
        self.count("loss")
        lost = self.project.root / path
        lost.rename(self.project.root.parent / f"lost {sum(self.counts.values())}") if lost.exists() else None
        self.is_done = False

    # Runs.

    @rule(runner=_runner, ask_the_other=st.booleans())
    def run(self, runner: str, ask_the_other: bool) -> None:
        self.count(runner)
        self.run_well(runner)
        if ask_the_other:
            self.expect_nothing_to_do(REPRO if runner == FLOW else FLOW)

    @rule(runner=_runner, step=_some_step)
    def kill_run(self, runner: str, step: int) -> None:
        self.after_kill(self.start(runner, kill_at=step))

    @rule(runner=_runner, stage=st.sampled_from(STAGES), moment=st.sampled_from(["begin", "end"]))
    def kill_run_in_a_stage(self, runner: str, stage: str, moment: str) -> None:
        order = self.project.root / "orders" / f"{stage}.{moment}"
        order.parent.mkdir(exist_ok=True)
        order.touch()
        self.after_kill(self.start(runner))
        order.unlink(missing_ok=True)

    # Production.

    @rule()
    def try_gate(self) -> None:
        self.count("promote")
        self.expect_verdict(self.project.do("promote"))

    @rule()
    def roll_back(self) -> None:
        self.count("rollback")
        before, earlier = self.there, self.earlier()
        ended = self.project.do("rollback")
        assert ended.status == (0 if earlier else 1), ended.output
        if earlier:
            self.rolled_back(before, earlier)

    @precondition(lambda self: self.exported.exists())
    @rule()
    def force(self) -> None:
        self.count("force")
        ended = self.project.do("force")
        assert ended.status == 0, ended.output
        self.promoted(by_hand=True)
        assert len(list(self.production.versions.glob("*.onnx"))) <= _KEEP + 1

    @rule(what=st.sampled_from(["promote", "rollback", "force"]), step=st.integers(1, 60))
    def kill_change(self, what: str, step: int) -> None:
        before, earlier = self.there, self.earlier()
        ended = self.project.do(what, kill_at=step)
        self.expect_no_crash(ended)
        self.count(f"kill of {what}" if ended.is_killed else what)
        now = self.production.digest
        if now == before and not (what == "force" and ended.status == 0):
            return
        if what == "rollback":
            self.rolled_back(before, earlier)
        else:
            self.promoted(by_hand=what == "force")

    @precondition(lambda self: self.there and self.exported.exists())
    @rule(contents=st.sampled_from([b"", b"no model"]))
    def damage_production(self, contents: bytes) -> None:
        """The gate refuses and says what helps, and that helps."""
        self.count("damage")
        self.production.model.write_bytes(contents)
        ended = self.project.do("promote")
        if (self.project.root / "build" / "dataset.parquet").exists():
            assert (ended.status, "is damaged" in ended.output) == (2, True), ended.output
        assert self.project.do("rollback").status == 0
        assert self.production.digest == self.there

    # The store and history.

    @rule(keep=st.integers(0, 2))
    def collect(self, keep: int) -> None:
        self.count("gc")
        self.expect_no_crash(self.project.do("gc", keep=keep))
        if self.is_done:
            ended = self.project.do("unread")
            assert ended.status == 0, ended.output

    @rule(step=st.integers(1, 60))
    def kill_gc(self, step: int) -> None:
        ended = self.project.do("gc", keep=1, kill_at=step)
        self.expect_no_crash(ended)
        self.count("kill of gc" if ended.is_killed else "gc")

    @precondition(lambda self: (self.project.root / "dvc.lock").exists())
    @rule()
    def commit(self) -> None:
        self.count("commit")
        self.project.succeed("git", "add", "--force", "dvc.lock")
        self.project.succeed("git", "-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "-", "--allow-empty")

    def teardown(self) -> None:
        """Whatever was before it, a run that nobody disturbs ends well; and then there is nothing to do."""
        self.run_well(FLOW)
        self.expect_nothing_to_do(REPRO)


def play(folder: Path, steps: int, first_seed: int) -> Counter[str]:
    """Play lives of up to 20 steps, about so many in all, and return what was done how often.

    Raises:
        AssertionError: something that must hold did not.
    """
    counts: Counter[str] = Counter()
    lives = settings(
        max_examples=1 + ceil(steps / _STEPS_OF_A_LIFE),  # the first life is always the dullest one
        stateful_step_count=_STEPS_OF_A_LIFE,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # to make a failure shorter takes an hour
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        print_blob=False,
    )
    with finished_project(folder) as project:
        life = type("Life", (Life,), {"project": project, "models": {}, "counts": counts})
        run_state_machine_as_test(seed(first_seed)(life), settings=lives)
    return counts


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress.state_machine", description="Edits, runs, kills, gc, promotions and rollbacks."
    )
    parser.add_argument("--steps", type=int, default=400, help="of all lives together")
    parser.add_argument("--seed", type=int, default=0, help="of the first life")
    arguments = parser.parse_args()
    print(describe_machine())
    with temporary_folder() as folder:
        counts = play(Path(folder), arguments.steps, arguments.seed)
    print(f"{sum(counts.values())} steps: " + ", ".join(f"{count} {what}" for what, count in counts.most_common()))


if __name__ == "__main__":
    sys.exit(main())
