"""The steps of a run that are not stages: recording the data before them, and production after them."""

import atexit
import os
from typing import NoReturn

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.approval import state_of, wait_for_a_person
from regraft.params_file import load_params
from regraft.production.gate.verdict import Verdict
from regraft.reports.pages import pages_of
from regraft.reports.sources import sources_of
from tasks import dvc_seam, stage
from tasks import promote as gate
from tasks.progress import prefect_progress
from tasks.project import enter_project
from tasks.report import refresh_report


def record_data() -> None:
    """Let DVC record the data folder as it is now, so that the run's inputs can be brought back later."""

    def record() -> State:
        root = enter_project()
        outcome = dvc_seam.record_data(root, load_params(root / "params.yaml").paths.raw)
        return Completed(name=outcome, message=f"data: {outcome.lower()}")

    stage.dvc_task("record_data", record)()


def promote_model() -> State:
    """Let the gate judge the new model; the state is named as its verdict is.

    Promoted, Promoted with warnings, Undecided, Waiting for approval, Already in production; Refused is a failure.
    """
    found: list[Verdict] = []

    def promote() -> State:
        params = load_params(enter_project() / "params.yaml")
        with prefect_progress("promote_model") as progress:
            verdict = gate.challenge(params, progress)
        found.append(verdict)
        if verdict.name != "Already in production":
            for key, markdown in pages_of("promote_model", sources_of(params)).items():
                create_markdown_artifact(markdown, key=key, description="promote_model")
        return state_of(verdict)

    state = stage.dvc_task("promote_model", promote)(return_state=True)
    if state.name == "Waiting for approval":
        return wait_for_a_person(found[-1])
    # Prefect counts a task's own state as one of many and names the flow's itself; a fresh one becomes the flow's.
    return State(type=state.type, name=state.name, message=state.message, data=state.data)


def write_report() -> None:
    """Write reports/report.html if something that it shows has changed: last, so that it has the gate's verdict."""

    def write() -> State:
        enter_project()
        return Completed(name="Written" if refresh_report() else "Up to date")

    stage.dvc_task("write_report", write)()


@flow
def promote() -> State:
    """Let models/model.onnx into production if the gate accepts it, without bringing any stage up to date first."""
    state = promote_model()
    write_report()
    return state


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
