"""Which runs are alive and which are dead, and how the Prefect server and the history learn of it.

A run posts a heartbeat every half minute; after three missed ones an automation takes it for dead. Prefect's own
heartbeats use a connection that is not made again after the server was restarted, so runs that go on well would be
taken for dead.

After `kill -9` or a power cut a run stays Running at the server for ever, because nobody is left to say otherwise. The
kernel knows: it has let go of the run's lock. So whoever comes next, the next run or `regraft serve`, tells it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.prefect_server.events import Project, flow_run_event, this_project
from regraft.core.config import Params
from regraft.core.errors import RegraftError
from tasks.runs.current_run import CurrentRun, page_of
from tasks.runs.live_runs import LiveRun, ended_runs, forget, known_runs, save
from tasks.runs.prefect_api import Api, ServerAway, ServerRefuses

SECONDS = 30.0  # between heartbeats; automations.yaml has three times of it
_JOIN_SECONDS = 15.0  # longer than the requests of a heartbeat may take
HEARTBEAT = "prefect.flow-run.heartbeat"
CRASHED = "The process of this run ended without a word: it was killed, or the machine went down. The next run goes on."
_BEGUN = ("PENDING", "RUNNING", "CANCELLING")
_BEGIN_SECONDS = 120.0  # from a worker taking a run until its process has written down that it lives
_NOT_BEGUN = ("SCHEDULED", "PENDING")  # of a run that has ended: Retry in the UI will begin it again
_TYPES = {"Failed": "FAILED", "Crashed": "CRASHED", "Cancelled": "CANCELLED", "Refused": "CANCELLED"}
_OF_ONE_TRY = ("data:", "git:")  # tags that another try of the run replaces
_FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def tell_of_dead_runs(params: Params, api: Api | None) -> list[str]:
    """Tell of every run that died, or that ended while the server was away; return a line about each."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(".dvc/tmp/regraft/dead.lock", timeout=0):
            return _tell_of(params, api, ended_runs())
    except Timeout:
        return []  # somebody else is doing it


def tell_of_vanished_runs(api: Api) -> list[str]:
    """Tell of runs that were killed before they could write down that they live; return a line about each.

    A run of this folder that began two minutes ago, and that no process here is, is none any more.
    """
    folder = str(Path.cwd().resolve())
    living = {run.flow_run for run in known_runs()}
    lines = []
    try:
        for run in api.post("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": list(_BEGUN)}}}}) or []:
            deployment = api.get(f"deployments/{run['deployment_id']}") if run.get("deployment_id") else None
            is_ours = deployment and (deployment.get("job_variables") or {}).get("working_dir") == folder
            if not is_ours or run["id"] in living or _age(run["state"]["timestamp"]) < _BEGIN_SECONDS:
                continue
            state = {"type": "CRASHED", "name": "Crashed", "message": CRASHED}
            api.post(f"flow_runs/{run['id']}/set_state", {"state": state, "force": True})
            lines.append(f"The run {run['name']} is dead: it was killed before it began to work.")
    except ServerAway:
        pass  # it is looked at again
    return lines


def ending_of(type: str, name: str, message: str, run_name: str, tags: list[str]) -> dict[str, Any]:
    """Return what the server is to be told of a run's end."""
    return {"state": {"type": type, "name": name, "message": message}, "run_name": run_name, "tags": tags}


def send_ending(api: Api, run: LiveRun, *, is_over: bool) -> bool:
    """Tell the server how a run ended; False where it knows no such run.

    Args:
        api: the server.
        run: with its ending.
        is_over: whether its process is gone; until then Prefect sets the state itself.

    Raises:
        ServerAway: it does not answer.
    """
    assert run.ending
    found = api.get(f"flow_runs/{run.flow_run}")
    if found is None:
        return False
    if is_over and found.get("state_type") in _NOT_BEGUN:
        _send_artifacts(api, run)
        return True
    name, tags = run.ending["run_name"], run.ending["tags"]
    before = [tag for tag in found.get("tags") or [] if not tag.startswith(_OF_ONE_TRY)]
    api.patch(f"flow_runs/{run.flow_run}", {"name": name, "tags": sorted({*before, *tags})})
    _send_artifacts(api, run)
    state = run.ending["state"]
    # An alarm for dead runs, or the worker, may have taken a run for crashed that ended well while the server was away.
    is_known = found.get("state_type") in _FINAL and (found["state_type"] != "CRASHED" or state["type"] == "CRASHED")
    if is_over and not is_known:
        api.post(f"flow_runs/{run.flow_run}/set_state", {"state": state, "force": True})
    return True


def _tell_of(params: Params, api: Api | None, ended: list[LiveRun]) -> list[str]:
    dead = {run.run for run in ended}
    living = {run.flow_run for run in known_runs() if run.run not in dead}
    lines = []
    for run in ended:
        if run.ending is None:
            run, line = _write_down(params, run)
            lines.append(line)
        if run.flow_run is not None:
            if api is None:
                continue
            try:
                if run.flow_run in living:  # Retry in the UI began it again: how that ends is what counts
                    _send_artifacts(api, run)
                else:
                    send_ending(api, run, is_over=True)
            except ServerAway:
                api = None  # the next one tells it; each question to a server that is silent takes seconds
                continue
        forget(run.run)
    return lines


def _write_down(params: Params, run: LiveRun) -> tuple[LiveRun, str]:
    """Give a run that died its end: what its own row in the history says, or else that it crashed."""
    from regraft.reports.page import cell
    from tasks.runs.run_history import add_crashed

    started = datetime.fromisoformat(run.started)
    row = add_crashed(params, run.run, started, run.started_by, CRASHED)
    label = f"{started:%Y-%m-%d} {row.name.lower()}"
    ending = ending_of(_TYPES.get(row.name, "COMPLETED"), row.name, row.reason, label, [])
    page = page_of("verdict", f"# {row.name}\n\n{cell(row.reason)}", row.reason)
    run = replace(run, ending=ending, artifacts=[*run.artifacts, page])
    save(run)
    if row.name == "Crashed":
        return run, f"{run.named} is dead: it was killed, or the machine went down."
    return run, f"{run.named} had ended as {row.name}, and was killed before it could say so."


def _send_artifacts(api: Api, run: LiveRun) -> None:
    for artifact in run.artifacts:
        with suppress(ServerRefuses):  # nobody is to wait for ever for a page
            api.post("artifacts/", artifact | {"flow_run_id": run.flow_run})


def _age(timestamp: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()


@contextmanager
def beating(run: CurrentRun) -> Iterator[None]:
    """Say that a run is alive for as long as the block runs, if a server follows it."""
    if run.api is None or run.live.flow_run is None:
        yield
        return
    over = threading.Event()
    try:
        project = this_project()
    except RegraftError:  # without prefect.yaml no automation waits for a sign of life
        yield
        return
    beats = threading.Thread(target=_beat, args=(run.api, run.live.flow_run, project, over), daemon=True)
    beats.start()
    try:
        yield
    finally:
        over.set()
        beats.join(_JOIN_SECONDS)  # it must not say Running of a run whose end is told next


def _beat(api: Api, flow_run: str, project: Project, over: threading.Event) -> None:
    while not over.is_set():
        with suppress(ServerAway):
            api.post("events", [flow_run_event(project, HEARTBEAT, flow_run)])
            _take_back(api, flow_run, over)
        over.wait(SECONDS)


def _take_back(api: Api, flow_run: str, over: threading.Event) -> None:
    """While the server was away it heard nothing, and may have taken the run for dead when it came back."""
    found: dict[str, Any] = api.get(f"flow_runs/{flow_run}") or {}
    if found.get("state_type") == "CRASHED" and not over.is_set():
        state = {"type": "RUNNING", "name": "Running", "message": "It was taken for dead, and is alive."}
        api.post(f"flow_runs/{flow_run}/set_state", {"state": state, "force": True})
