"""`promote.mode: approve`: what becomes of a model that waits for a person."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import FlowPauseTimeout

from flows import approval, run
from flows.approval import Approval, wait_for_a_person
from flows.promote import _TYPES
from regraft.core.params_file import load_params
from regraft.production.gate.verdict import Verdict
from regraft.production.logs import Change
from tasks.runs.current_run import CurrentRun, enter_run, leave_run
from tasks.runs.live_runs import is_anybody_working, new_live_run, only_run
from tasks.runs.prefect_api import Api
from tests.support.pipeline import ROOT

ABOUT = {"about": {"model": "a" * 64}}
WAITING = Verdict("Waiting for approval", False, "Waiting for approval. The gate says Promoted: so.", ABOUT)


class Away(Api):
    """A server that is there when it is asked for its health, and that nobody asks anything else."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9/api")

    def answers(self) -> bool:
        return True


@pytest.fixture
def others() -> list[bool]:
    """Whether another run could work while a person was waited for."""
    return []


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, others: list[bool]) -> Iterator[list[Any]]:
    """What the person says: an Approval, or an error to be raised; filled by the test. Works alone in its folder."""
    said: list[Any] = []

    def pause(**arguments: Any) -> Approval:
        assert arguments["timeout"] == 13 * 3600  # Prefect gives up later than the run itself
        others.append(not is_anybody_working())
        answer = said.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def approve(params: Any, candidate: str, reason: str) -> Change:
        return Change("2026-11-26T03:00:00+00:00", "promoted", candidate, f"Approved by alice: {reason}.")

    monkeypatch.setattr(approval, "pause_flow_run", pause)
    monkeypatch.setattr(approval.gate, "approve", approve)
    monkeypatch.setattr(approval, "enter_project", lambda: ROOT)
    monkeypatch.chdir(tmp_path)
    params = load_params(ROOT / "params.yaml")
    lock = only_run(new_live_run("x", datetime.now(UTC), "hand", None), 0, print)
    lock.__enter__()
    monkeypatch.setattr(run, "_locks", [(params, lock)])
    yield said
    run._locks[-1][1].__exit__(None, None, None)


def outcome_after(answers: list[Any], answer: Any, *, followed: bool = True) -> tuple[str, str]:
    answers.append(answer)
    enter_run(CurrentRun(new_live_run("x", datetime.now(UTC), "hand", "a flow run" if followed else None), Away()))
    try:
        outcome = wait_for_a_person(WAITING)
    finally:
        leave_run()
    assert outcome.type == "COMPLETED"
    return outcome.name, outcome.message


def test_a_person_who_says_yes_promotes_with_the_reason(answers: list[Any]) -> None:
    name, message = outcome_after(answers, Approval(approve=True, reason="looked at the mistakes"))
    assert (name, message.startswith("Approved by alice: looked at the mistakes.")) == ("Promoted", True)


def test_a_person_who_says_no_leaves_production_as_it_is(answers: list[Any]) -> None:
    name, message = outcome_after(answers, Approval(approve=False, reason="too few cats"))
    assert (name, message.startswith("Not approved: too few cats.")) == ("Not approved", True)
    assert "`regraft promote --candidates` lists it" in message


@pytest.mark.parametrize("answer", [Approval(reason=approval._NOBODY), FlowPauseTimeout("late")])
def test_where_nobody_answers_in_time_the_model_stays_a_candidate(answers: list[Any], answer: Any) -> None:
    name, message = outcome_after(answers, answer)
    assert name == "Waiting for approval"
    assert message.startswith("Nobody answered within promote.approve_hours, 12. Production stays.")


def test_without_a_server_nobody_is_waited_for(answers: list[Any]) -> None:
    name, message = outcome_after(answers, AssertionError("nobody is asked"), followed=False)
    assert (name, "accepts it" in message) == ("Waiting for approval", True)


def test_another_run_may_work_while_one_waits_for_a_person(answers: list[Any], others: list[bool]) -> None:
    outcome_after(answers, Approval(approve=False))
    assert (others, is_anybody_working()) == ([True], True)


@pytest.mark.parametrize("name", ["Promoted", "Promoted with warnings", "Undecided", "Refused"])
def test_a_refusal_is_grey_and_nothing_that_the_gate_says_is_red(name: Any) -> None:
    assert _TYPES.get(name, "COMPLETED") == ("CANCELLED" if name == "Refused" else "COMPLETED")


def test_the_default_waits_for_nobody() -> None:
    assert load_params(ROOT / "params.yaml").promote.mode == "auto"
