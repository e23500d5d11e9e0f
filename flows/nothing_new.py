"""A run that has nothing to do ends before Prefect is imported, whose import takes longer than to see that.

python -m flows.nothing_new     what a worker starts for a planned run: it ends it, or becomes Prefect's engine
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.after_run import after_run, commit_run
from flows.prefect_server.dead_runs import tell_of_dead_runs
from regraft.core.config import Params
from regraft.core.errors import InvalidData
from regraft.core.params_file import load_params
from tasks.runs.current_run import CurrentRun, RunRecord, enter_run, leave_run, new_run_id
from tasks.runs.live_runs import alive, forget, is_anybody_working, new_live_run
from tasks.runs.prefect_api import Api, ServerAway
from tasks.score_photos import nothing_to_score, outcome_of
from tasks.step import Outcome
from tasks.up_to_date import nothing_to_do


def end_early(root: Path, *, promote: bool, commit: bool, plan: "Plan | None" = None) -> Outcome | None:
    """End a run that has nothing to do; None if it may have something to do, or another run is at work.

    Args:
        root: the project's root.
        promote: whether the run would end with the gate.
        commit: whether it would end with a commit.
        plan: the planned run of a Prefect server that this process is to do; None for one that a person started.

    Raises:
        RegraftError: params.yaml is wrong, or this is no project.
        ServerAway: of a planned run, before anything was done.
    """
    if is_anybody_working():
        return None
    started = datetime.now(UTC)
    try:
        found = nothing_to_do(root, promote=promote)
    except InvalidData:
        return None  # the flow stops with it, and leaves a receipt and a line of history
    if found is None:
        return None
    return _end(load_params(root / "params.yaml"), Outcome(*found), started, plan, commit=commit, writes_history=True)


def end_scoring_early(root: Path, plan: "Plan | None" = None) -> Outcome | None:
    """The same of a run of `flows/score.py`: None if photos are set, or another run is at work.

    Raises:
        RegraftError: params.yaml is wrong, or the photos cannot be found.
        ServerAway: of a planned run, before anything was done.
    """
    if is_anybody_working():
        return None
    started, params = datetime.now(UTC), load_params(root / "params.yaml")
    said = nothing_to_score(params)
    return _end(params, outcome_of(said), started, plan, commit=False, writes_history=False) if said else None


def _end(
    params: Params, outcome: Outcome, started: datetime, plan: "Plan | None", *, commit: bool, writes_history: bool
) -> Outcome:
    """End a run, and tell whoever is to know of it."""
    if plan:
        plan.enter("RUNNING", "Running", "")
    by, flow_run, api = (plan.deployment, plan.flow_run, plan.api) if plan else ("hand", None, None)
    live = new_live_run(new_run_id(started), started, by, flow_run)
    with alive(live):
        enter_run(CurrentRun(live, api))
        ended = datetime.now(UTC)
        record = RunRecord(live.run, started, ended, by, outcome.name, outcome.message, (), plan.url if plan else None)
        after_run(params, record, outcome, writes_history=writes_history)
        if commit:
            outcome = commit_run(params, record, outcome)
        leave_run()
        if plan:
            try:
                plan.enter(outcome.type, outcome.name, outcome.message)
            except ServerAway:
                return outcome  # all is done, and the next run tells the server
            tell_of_dead_runs(params, api)
    forget(live.run)
    return outcome


class Plan:
    """A planned run of a Prefect server."""

    def __init__(self, api: Api, flow_run: str) -> None:
        found = api.get(f"flow_runs/{flow_run}")
        if found is None:
            raise ServerAway(f"{api.url} knows no flow run {flow_run}")
        self.api, self.flow_run = api, flow_run
        self.parameters: dict[str, Any] = found["parameters"]
        deployment = (api.get(f"deployments/{found['deployment_id']}") if found.get("deployment_id") else None) or {}
        self.deployment = str(deployment.get("name") or "hand")
        self.entrypoint = str(deployment.get("entrypoint"))
        self.url = f"{api.url.removesuffix('/api')}/runs/flow-run/{flow_run}"

    def enter(self, type: str, name: str, message: str) -> None:
        """Set the run's state."""
        state = {"type": type, "name": name, "message": message}
        self.api.post(f"flow_runs/{self.flow_run}/set_state", {"state": state, "force": False})
