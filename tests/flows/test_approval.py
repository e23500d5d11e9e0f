"""`promote.mode: approve`: what becomes of a model that waits for a person."""

from typing import Any

import pytest
from prefect.exceptions import FlowPauseTimeout
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import approval
from flows.approval import Approval, state_of, wait_for_a_person
from regraft.params_file import load_params
from regraft.production.change_log import Change
from regraft.production.gate.verdict import Verdict
from tests.support.pipeline import ROOT

WAITING = Verdict("Waiting for approval", False, "Waiting for approval. The gate says Promoted: so.", {"about": {}})
SERVER = "http://127.0.0.1:9/api"  # nobody is asked: what would ask is replaced


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the person says: an Approval, or an error to be raised; filled by the test."""
    said: list[Any] = []

    def pause(**arguments: Any) -> Approval:
        assert arguments["timeout"] == 12 * 3600
        answer = said.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def approve(params: Any, verdict: Verdict, reason: str) -> Change:
        return Change(
            "2026-11-26T03:00:00+00:00", "promoted", "a" * 64, f"Approved by alice: {reason}. {verdict.words}"
        )

    monkeypatch.setattr(approval, "pause_flow_run", pause)
    monkeypatch.setattr(approval.gate, "approve", approve)
    monkeypatch.setattr(approval, "enter_project", lambda: ROOT)
    return said


def state_after(answers: list[Any], answer: Any, server: str | None = SERVER) -> tuple[str, str]:
    answers.append(answer)
    with temporary_settings({PREFECT_API_URL: server} if server else {}, restore_defaults={PREFECT_API_URL}):
        state = wait_for_a_person(WAITING)
    assert state.is_completed()
    return str(state.name), str(state.message)


def test_a_person_who_says_yes_promotes_with_the_reason(answers: list[Any]) -> None:
    name, message = state_after(answers, Approval(approve=True, reason="looked at the mistakes"))
    assert (name, message.startswith("Approved by alice: looked at the mistakes.")) == ("Promoted", True)


def test_a_person_who_says_no_leaves_production_as_it_is(answers: list[Any]) -> None:
    name, message = state_after(answers, Approval(approve=False, reason="too few cats"))
    assert (name, message.startswith("Not approved: too few cats.")) == ("Not approved", True)
    assert "`regraft promote --candidates` lists it" in message


def test_where_nobody_answers_in_time_the_model_stays_a_candidate(answers: list[Any]) -> None:
    name, message = state_after(answers, FlowPauseTimeout("late"))
    assert name == "Waiting for approval"
    assert message.startswith("Nobody answered within promote.approve_hours, 12. Production stays.")


def test_without_a_server_that_outlives_the_run_nobody_is_waited_for(answers: list[Any]) -> None:
    name, message = state_after(answers, AssertionError("nobody is asked"), server=None)
    assert (name, "promotes it" in message) == ("Waiting for approval", True)


@pytest.mark.parametrize(
    ("name", "is_failed"),
    [("Promoted", False), ("Promoted with warnings", False), ("Undecided", False), ("Refused", True)],
)
def test_only_a_refusal_is_red(name: Any, is_failed: bool) -> None:
    state = state_of(Verdict(name, False, f"{name}: so."))
    assert (state.name, state.message, state.is_failed()) == (name, f"{name}: so.", is_failed)


def test_the_default_waits_for_nobody() -> None:
    assert load_params(ROOT / "params.yaml").promote.mode == "auto"
