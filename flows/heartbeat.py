"""A run says every half minute that it is alive; after three times of silence an automation takes it for dead.

Prefect has heartbeats of its own. They come through a connection that is not made again when the server was started
again meanwhile, so every run that went on well would be taken for dead.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flows.prefect_server.events import Project, flow_run_event, this_project
from regraft.errors import RegraftError
from tasks.runs.current_run import CurrentRun
from tasks.runs.prefect_api import Api, ServerAway

SECONDS = 30.0  # automations.yaml has three times of it
_JOIN_SECONDS = 15.0  # longer than its requests may take
EVENT = "prefect.flow-run.heartbeat"


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
            api.post("events", [flow_run_event(project, EVENT, flow_run)])
            _take_back(api, flow_run, over)
        over.wait(SECONDS)


def _take_back(api: Api, flow_run: str, over: threading.Event) -> None:
    """While the server was away it heard nothing, and may have taken the run for dead when it came back."""
    found: dict[str, Any] = api.get(f"flow_runs/{flow_run}") or {}
    if found.get("state_type") == "CRASHED" and not over.is_set():
        state = {"type": "RUNNING", "name": "Running", "message": "It was taken for dead, and is alive."}
        api.post(f"flow_runs/{flow_run}/set_state", {"state": state, "force": True})
