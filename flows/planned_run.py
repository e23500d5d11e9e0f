"""What a worker starts for a planned run: `python -m flows.planned_run`, the `command` in prefect.yaml.

A retraining that has nothing to do, or a scoring without new photos, ends before Prefect is imported. All else is done
by Prefect's engine, as by its own command, except that a run which ended in Failed or Refused has said why: Prefect's
would add a page of traceback.
"""

import os
import sys
from typing import Any, TextIO
from uuid import UUID

from flows.nothing_new import Plan, end_early, end_scoring_early
from regraft.core.errors import RegraftError
from tasks.project import enter_project, readable_errors
from tasks.runs.prefect_api import ServerAway, named_api
from tasks.step import Outcome

_RETRAIN, _SCORE = "flows/retrain.py:retrain", "flows/score.py:score"


class Lasting:
    """A stream of this process that outlives whoever reads it.

    A worker that is killed reads no more. Rich, which prints for Prefect, would end the run at its next line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, to nobody if nobody is there."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        """Write what was kept back."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._let_go()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _let_go(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def _end_early(flow_run: str) -> Outcome | None:
    try:
        root, api = enter_project(), named_api()
        plan = Plan(api, flow_run) if api else None
        if plan and plan.entrypoint == _SCORE:
            return end_scoring_early(root, plan)
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
    sys.stdout, sys.stderr = Lasting(sys.stdout), Lasting(sys.stderr)  # type: ignore[assignment]
    with readable_errors("run"):
        planned = os.environ["PREFECT__FLOW_RUN_ID"]
        if outcome := _end_early(planned):
            print(f"{outcome.name}: {outcome.message}", flush=True)
            sys.stdout.flush()
            os._exit(0)
        _run_by_engine(UUID(planned))
