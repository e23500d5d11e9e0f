"""The steps of a run that are not stages: recording the data before them, and production after them.

python -m flows.promote                 let models/model.onnx into production if the gate accepts it
python -m flows.promote --rollback      put the model that was in production before back
python -m flows.promote --history       list what was in production, and when
"""

import argparse
import atexit
import os
from typing import NoReturn

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.server import connected
from regraft.params_file import load_params
from tasks import dvc_seam, stage
from tasks import promote as gate
from tasks.progress import prefect_progress


def record_data() -> None:
    """Let DVC record the data folder as it is now, so that the run's inputs can be brought back later."""

    def record() -> State:
        root = stage.enter_project()
        outcome = dvc_seam.record_data(root, load_params(root / "params.yaml").paths.raw)
        return Completed(name=outcome, message=f"data: {outcome.lower()}")

    stage.dvc_task("record_data", record)()


def promote_model() -> State:
    """Return a state named Promoted, Already in production, or Refused; the last is a failure, and production stays."""

    def promote() -> State:
        params = load_params(stage.enter_project() / "params.yaml")
        with prefect_progress("promote_model") as progress:
            verdict = gate.challenge(params, progress)
        if verdict is None:
            return Completed(name="Already in production", message="This very file is in production already.")
        create_markdown_artifact(f"# Gate\n\n{verdict.words}", key="gate", description="promote_model")
        if verdict.is_accepted:
            return Completed(name="Promoted", message=verdict.words)
        return Failed(name="Refused", message=verdict.words)

    state = stage.dvc_task("promote_model", promote)(return_state=True)
    # Prefect counts a task's own state as one of many and names the flow's itself; a fresh one becomes the flow's.
    return State(type=state.type, name=state.name, message=state.message, data=state.data)


@flow
def promote() -> State:
    """Let models/model.onnx into production if the gate accepts it, without bringing any stage up to date first."""
    return promote_model()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.promote", description="Change which model is in production.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--rollback", action="store_true", help="put the previous model back")
    choice.add_argument("--history", action="store_true", help="list what was in production, and when")
    arguments = parser.parse_args()
    with stage.readable_errors("promote"):
        params = load_params(stage.enter_project() / "params.yaml")
        if arguments.rollback:
            _print(gate.rollback(params))
        elif arguments.history:
            for change in gate.history(params):
                _print(change)
        else:
            with connected():
                leave_with(promote(return_state=True))


def leave_with(state: State) -> NoReturn:
    """End the process: 0 if the run is completed, 1 and the error if it failed, 2 if the gate refused the model."""
    if state.is_failed() and state.name != "Refused":
        state.result()
    said = state.message or "every stage is up to date"
    print(f"\n{said}" if said.startswith(f"{state.name}:") else f"\n{state.name}: {said}", flush=True)
    # Prefect's handlers send the last logs and stop a temporary server. All that Python would do after them is take its
    # modules apart, which lasts two seconds for TensorFlow's.
    atexit._run_exitfuncs()
    os._exit(2 if state.is_failed() else 0)


def _print(change: gate.Change) -> None:
    print(f"{change.at}  {change.action:11}  {change.sha256[:12]}  {change.words}")


if __name__ == "__main__":
    main()
