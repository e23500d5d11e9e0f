"""kill -9 at every step of a change of production, and two processes that change it at once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft.core.errors import Busy, InputsChanged
from regraft.core.files import sha256_of
from regraft.production.registry import Grounds, Production
from tests.support.production import change_for_ever, promote, promote_by_gate, roll_back, write_candidate
from tests.support.steps import SIGSTOP, Stepping


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / "production"


def text_in(folder: Path) -> str:
    """The model in production, after a look at all that must hold whatever was killed."""
    production = Production(folder)
    standing = production.standing()
    assert standing.problem is None
    assert standing.digest == production.history()[-1].sha256 == sha256_of(production.model)
    assert production.log.read()[1] == 0
    return production.model.read_text()


def kills(folder: Path, *promoted: str, function, arguments: tuple[str, ...] = ()) -> Iterator[tuple[int, Path]]:
    """Make the same project again and again, and kill a change of it at every fifth of its steps, one by one."""
    step = 0
    while True:
        step += 5  # `tests.stress.promotion_kills` kills at any
        project = folder / str(step) / "production"
        for contents in promoted:
            promote(project, contents)
        for contents in arguments:
            write_candidate(project, contents)
        if not Stepping(function, project, *arguments, at=step).is_killed():
            assert step > 20, "so few steps are not a whole change"
            return
        yield step, project


def test_a_killed_promotion_leaves_the_old_model_or_the_new_one_and_the_same_promotion_succeeds(folder):
    seen = []
    for step, project in kills(folder, "zero", "one", function=promote, arguments=("two",)):
        seen.append(text_in(project))
        promote(project, "two")
        assert text_in(project) == "two", step
        reference, _ = Production(project).find_reference()
        assert reference is not None
        assert reference.rows.label[0] == "two"
    assert sorted(set(seen)) == ["one", "two"]
    assert seen == sorted(seen)


def test_a_killed_first_promotion_is_no_model_or_a_sound_one_and_never_a_lost_one(folder):
    seen = []
    for _, project in kills(folder, function=promote, arguments=("one",)):
        standing = Production(project).standing()
        assert standing.problem is None
        seen.append(standing.digest is not None)
        promote_by_gate(project, "one" if standing.digest is None else "two")
        assert text_in(project) in ("one", "two")
    assert set(seen) == {True, False}


def test_a_killed_rollback_leaves_one_of_both_models_and_the_one_that_was_left_stays_out(folder):
    seen = []
    for step, project in kills(folder, "zero", "one", function=roll_back):
        seen.append(text_in(project))
        left = Production(project).rolled_back(sha256_of(write_candidate(project, "one")))
        assert (left is not None) == (seen[-1] == "zero"), step
        if seen[-1] == "zero":
            with pytest.raises(InputsChanged, match="was rolled back from"):
                promote_by_gate(project, "one")
            assert text_in(project) == "zero"
    assert set(seen) == {"one", "zero"}


def test_after_a_killed_rollback_the_next_change_is_made_and_remembers_it(folder):
    for step, project in kills(folder, "zero", "one", function=roll_back):
        there, production = text_in(project), Production(project)
        assert (production.waits_since() is not None) == (there == "zero"), step
        if there == "zero":
            with pytest.raises(InputsChanged, match=r"only a person may promote a model now\. At 2.* Rolled back from"):
                promote_by_gate(project, "two")
        promote(project, "two")
        assert text_in(project) == "two", step


def test_a_killed_promotion_by_a_person_lets_the_gate_promote_again_once_the_model_is_there(folder):
    seen = []
    for step, project in kills(folder, "zero", "one", function=back_and_approved):
        seen.append(text_in(project))
        production = Production(project)
        changes = [(change.action, change.sha256) for change in production.history()]
        is_back = changes[-1][0] == "rolled back"
        assert (production.waits_since() is not None) == is_back, step
        if seen[-1] == "two":
            promote_by_gate(project, "three")
            assert text_in(project) == "three"
    assert set(seen) == {"one", "zero", "two"}


def back_and_approved(folder: Path) -> None:
    """Roll back, and promote another model as a person does."""
    roll_back(folder)
    path = write_candidate(folder, "two")
    grounds = Grounds(sha256_of(path), is_by_hand=True, approved_by="alice")
    Production(folder).promote(path, "by hand", keep=5, grounds=grounds)


def test_a_model_that_a_person_promotes_again_is_no_longer_kept_out_whenever_that_is_killed(folder):
    for step, project in kills(folder, "zero", "one", "two", function=again):
        is_back = text_in(project) == "two"
        promote(project, "three")
        left = Production(project).rolled_back(sha256_of(write_candidate(project, "two")))
        assert (left is None) == is_back, step


def again(folder: Path) -> None:
    """Roll back, and promote what was left."""
    roll_back(folder)
    promote(folder, "two")


# Two at once.


@pytest.fixture
def stopped_promotion(folder: Path) -> Iterator[Stepping]:
    """A promotion of `two` over `one` that has stopped in the middle, with the lock."""
    promote(folder, "zero")
    promote(folder, "one")
    write_candidate(folder, "two")
    steps = Stepping(promote, folder, "one").steps()
    stopped = Stepping(promote, folder, "two", at=steps // 2, how=SIGSTOP)
    stopped.wait_until_stopped()
    yield stopped
    stopped.end()


def test_a_rollback_during_a_promotion_says_who_is_in_the_way_and_changes_nothing(folder, stopped_promotion):
    pid = stopped_promotion.process.pid
    before = text_in(folder)
    with pytest.raises(
        Busy, match=rf"is being changed by process {pid} on .*, which is promoting a model since 2\d{{3}}-"
    ):
        Production(folder, patience=0.1).rollback()
    assert text_in(folder) == before


def test_a_lock_whose_holder_was_killed_keeps_nobody_waiting(folder, stopped_promotion):
    stopped_promotion.end()
    Production(folder, patience=0.1).rollback()
    assert text_in(folder) in ("zero", "one")


def test_many_changes_from_three_processes_leave_one_story(folder):
    promote(folder, "zero")
    for contents in ("one", "two", "three"):
        write_candidate(folder, contents)
    changing = [Stepping(change_for_ever, folder, contents, 8) for contents in ("one", "two", "three")]
    assert [process.is_killed() for process in changing] == [False] * 3
    assert len(Production(folder).history()) == 1 + 3 * 8 * 2
    assert text_in(folder) == "zero"
