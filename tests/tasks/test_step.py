"""A step of a run: what is noted of it, how it waits for others, and what a lost server does to it: nothing."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from regraft.core.errors import Busy, InvalidData, RegraftError
from tasks import step as steps
from tasks.runs.current_run import CurrentRun, enter_run, leave_run
from tasks.runs.live_runs import new_live_run
from tasks.runs.prefect_api import Api
from tasks.step import Outcome, step

RAN = Outcome("Ran")


class There(Api):
    """A server that is there whenever it is asked."""

    def answers(self) -> bool:
        return True


@pytest.fixture
def run() -> Iterator[CurrentRun]:
    """The run of this process, without a server."""
    run = CurrentRun(new_live_run("x", datetime.now(UTC), "hand", None))
    enter_run(run)
    yield run
    leave_run()


@pytest.fixture
def followed() -> Iterator[CurrentRun]:
    """The run of this process, which reports to a server."""
    run = CurrentRun(new_live_run("x", datetime.now(UTC), "hand", "a flow run"), There("http://127.0.0.1:9/api"))
    enter_run(run)
    yield run
    leave_run()


def raising(error: BaseException) -> Callable[[], Outcome]:
    def function() -> Outcome:
        raise error

    return function


def test_what_became_of_every_step_is_noted_in_order(run: CurrentRun) -> None:
    assert step("first", lambda: RAN) == RAN
    with pytest.raises(InvalidData):
        step("second", raising(InvalidData("no photos")))
    with pytest.raises(KeyboardInterrupt):
        step("third", raising(KeyboardInterrupt()))
    assert [(stage.name, stage.outcome) for stage in run.stages] == [
        ("first", "Ran"),
        ("second", "Failed"),
        ("third", "Stopped"),
    ]


def test_a_step_waits_for_another_process_and_says_once_for_which(run: CurrentRun, monkeypatch, capsys) -> None:
    monkeypatch.setattr(steps, "_LOOK_SECONDS", 0.01)
    answers: list[Any] = [Busy("process 7 trains."), Busy("process 7 trains."), Busy("process 8 trains."), RAN]

    def function() -> Outcome:
        answer = answers.pop(0)
        if isinstance(answer, Busy):
            raise answer
        return answer

    assert step("train_head", function) == RAN
    assert capsys.readouterr().err == "Waiting: process 7 trains.\ntrain_head: Ran\n"


def _loses_the_server(monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
    def task(**_: Any) -> Any:
        def decorate(run: Callable[[], Any]) -> Callable[..., Any]:
            def call(return_state: bool) -> Any:
                if not before:
                    run()
                raise ConnectionError("the server has gone")

            return call

        return decorate

    import prefect

    monkeypatch.setattr(prefect, "task", task)


def test_a_server_that_goes_away_after_the_work_is_done_is_no_failure(followed: CurrentRun, monkeypatch) -> None:
    _loses_the_server(monkeypatch, before=False)
    assert step("train_head", lambda: RAN) == RAN
    assert [stage.outcome for stage in followed.stages] == ["Ran"]


def test_a_message_is_not_lost_with_the_server(followed: CurrentRun, monkeypatch) -> None:
    _loses_the_server(monkeypatch, before=False)
    with pytest.raises(RegraftError, match="no photos"):
        step("train_head", raising(InvalidData("no photos")))


def test_a_server_that_goes_away_before_the_work_begins_keeps_nobody_from_it(followed: CurrentRun, monkeypatch) -> None:
    _loses_the_server(monkeypatch, before=True)
    assert step("train_head", lambda: RAN) == RAN
