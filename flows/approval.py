"""`promote.mode: approve`: a model that the gate would promote waits for a person in the Prefect UI."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows.prefect_server.events import announce
from flows.run import without_lock
from regraft.core.params_file import load_params
from regraft.production.gate.verdict import Verdict
from tasks import promote as gate
from tasks.after_promotion import after_promotion
from tasks.project import enter_project
from tasks.runs.current_run import CurrentRun, current_run
from tasks.runs.prefect_api import ServerAway
from tasks.step import Outcome

_POLL_SECONDS = 5
_LONGER_SECONDS = 3600  # after its own deadline Prefect ends a run as Failed, whatever the run says
_NOBODY = "nobody answered in time"
_LATER = "`regraft promote --candidates` lists it, and `regraft promote --candidate SHA` accepts it."


class Approval(RunInput):
    """The form of the Resume button in the Prefect UI."""

    approve: bool = Field(default=False, description="put the new model into production")
    reason: str = Field(default="", description="why, for the log; may be empty")


def wait_for_a_person(verdict: Verdict) -> Outcome:
    """Pause the run until a person answers in the Prefect UI, or `promote.approve_hours` are over.

    Without a server nobody could answer: then the model stays a candidate at once. Other runs may work meanwhile.
    """
    params = load_params(enter_project() / "params.yaml")
    run = current_run()
    if run is None or not run.reports:
        return Outcome("Waiting for approval", f"{verdict.words} {_LATER}")
    announce("regraft.approval", verdict.words)
    seconds = 3600 * params.promote.approve_hours
    answer = Approval(reason=_NOBODY)
    with without_lock(), _answered_for_nobody(run, seconds), suppress(FlowPauseTimeout):
        answer = pause_flow_run(
            wait_for_input=Approval.with_initial_data(description=verdict.words),
            timeout=round(seconds + _LONGER_SECONDS),
            poll_interval=_POLL_SECONDS,
            key="approval",
        )
    if answer.reason == _NOBODY and not answer.approve:
        said = f"Nobody answered within promote.approve_hours, {params.promote.approve_hours:g}. Production stays."
        return Outcome("Waiting for approval", f"{said} {_LATER} {verdict.words}")
    if not answer.approve:
        return Outcome("Not approved", f"Not approved: {answer.reason or 'no reason given'}. {_LATER}")
    words = gate.approve(params, verdict.figures["about"]["model"], answer.reason).words
    warnings = after_promotion(params)
    return Outcome("Promoted with warnings" if warnings else "Promoted", " ".join([words, *warnings]))


@contextmanager
def _answered_for_nobody(run: CurrentRun, seconds: float) -> Iterator[None]:
    """Answer no when the time is over, as a person does who presses Resume."""
    over = threading.Event()

    def answer() -> None:
        over.wait(seconds)
        while not over.is_set():
            with suppress(ServerAway):
                if run.api:
                    no = {"run_input": {"approve": False, "reason": _NOBODY}}
                    run.api.post(f"flow_runs/{run.live.flow_run}/resume", no)
            over.wait(_POLL_SECONDS)

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield
    finally:
        over.set()
