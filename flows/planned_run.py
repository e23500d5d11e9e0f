"""What a worker starts for a planned run: `python -m flows.planned_run`, the `command` in prefect.yaml.

A retraining that has nothing to do ends before Prefect is imported. All else is done by Prefect's engine, as by its own
command, except that a run which ended in Failed or Refused has said why: Prefect's would add a page of traceback.
"""

import os
import sys
from uuid import UUID

from flows.nothing_new import Plan, end_early
from regraft.errors import RegraftError
from tasks.prefect_api import ServerAway, named_api
from tasks.project import enter_project, readable_errors
from tasks.step import Outcome

_RETRAIN = "flows/retrain.py:retrain"


def _end_early(flow_run: str) -> Outcome | None:
    try:
        root, api = enter_project(), named_api()
        plan = Plan(api, flow_run) if api else None
        if plan is None or plan.entrypoint != _RETRAIN:
            return None
        promote, commit = (bool(plan.parameters.get(name, name == "promote")) for name in ("promote", "commit"))
        return end_early(root, promote=promote, commit=commit, plan=plan)
    except (RegraftError, ServerAway):
        return None  # the run says it, where a person looks


def _run_by_engine(flow_run_id: UUID) -> None:
    from prefect._internal.control_listener import configure_from_env
    from prefect.engine import handle_engine_signals
    from prefect.flow_engine import load_flow, load_flow_run, run_flow

    configure_from_env()  # so that a worker can tell a cancellation from a crash
    with handle_engine_signals(flow_run_id):
        flow_run = load_flow_run(flow_run_id)
        run_flow(load_flow(flow_run), flow_run=flow_run, return_type="state")


if __name__ == "__main__":
    with readable_errors("run"):
        planned = os.environ["PREFECT__FLOW_RUN_ID"]
        if outcome := _end_early(planned):
            print(f"{outcome.name}: {outcome.message}", flush=True)
            sys.stdout.flush()
            os._exit(0)
        _run_by_engine(UUID(planned))
