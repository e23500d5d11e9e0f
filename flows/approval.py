"""`promote.mode: approve`: a model that the gate would promote waits for a person in the Prefect UI."""

from prefect.client.schemas.objects import State
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed
from pydantic import Field

from regraft.params_file import load_params
from regraft.production.gate.verdict import Verdict
from tasks import promote as gate
from tasks.project import enter_project

_POLL_SECONDS = 5
_LATER = "`regraft promote --candidates` lists it, and `regraft promote --force REASON --candidate SHA` promotes it."


class Approval(RunInput):
    """The form of the Resume button in the Prefect UI."""

    approve: bool = Field(default=False, description="put the new model into production")
    reason: str = Field(default="", description="why, for the log")


def state_of(verdict: Verdict) -> State:
    """Return the state of a run that ends with this verdict."""
    make = Failed if verdict.name == "Refused" else Completed
    return make(name=verdict.name, message=verdict.words)


def wait_for_a_person(verdict: Verdict) -> State:
    """Pause the run until a person answers in the Prefect UI, or `promote.approve_hours` are over.

    Without a server that outlives the run nobody could answer: then the model stays a candidate at once.
    """
    params = load_params(enter_project() / "params.yaml")
    if not PREFECT_API_URL.value():
        return Completed(name="Waiting for approval", message=f"{verdict.words} {_LATER}")
    try:
        answer = pause_flow_run(
            wait_for_input=Approval.with_initial_data(description=verdict.words),
            timeout=round(3600 * params.promote.approve_hours),
            poll_interval=_POLL_SECONDS,
            key="approval",
        )
    except FlowPauseTimeout:
        said = f"Nobody answered within promote.approve_hours, {params.promote.approve_hours:g}. Production stays."
        return Completed(name="Waiting for approval", message=f"{said} {_LATER} {verdict.words}")
    if not answer.approve:
        return Completed(name="Not approved", message=f"Not approved: {answer.reason or 'no reason given'}. {_LATER}")
    return Completed(name="Promoted", message=gate.approve(params, verdict, answer.reason).words)
