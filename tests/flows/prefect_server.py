"""A Prefect server of the tests' own, and what it knows about flow runs."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FlowRun:
    """What the UI shows of a flow run that has ended."""

    state: str
    task_states: dict[str, str]


@dataclass(frozen=True)
class Server:
    """A Prefect server of the tests' own."""

    api: str

    def task_states(self, flow_run: str) -> dict[str, str]:
        """Return the name of the state of every task of a flow run, as the UI shows it."""
        give_up = time.monotonic() + 30
        while True:  # what tasks did reaches the server's database a moment after the flow's end
            tasks = self.post("task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
            states = {task["name"].rsplit("-", 1)[0]: task["state"] for task in tasks}
            if states and all(state["type"] in ("COMPLETED", "FAILED", "CRASHED") for state in states.values()):
                return {name: state["name"] for name, state in states.items()}
            assert time.monotonic() < give_up, f"the server does not know the end of flow run {flow_run}: {states}"
            time.sleep(0.2)

    def last_flow_run(self) -> FlowRun:
        """Return the flow run that started last, when its end is known."""
        run = self.post("flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]
        return FlowRun(run["state"]["name"], self.task_states(run["id"]))

    def post(self, path: str, body: Any) -> Any:
        """Ask the API."""
        request = urllib.request.Request(
            f"{self.api}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)


@contextmanager
def running_server(folder: Path, environment: dict[str, str]) -> Iterator[Server]:
    """Run a server on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api, log = f"http://127.0.0.1:{port}/api", folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        give_up = time.monotonic() + 90
        while not _answers(api):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.2)
        yield Server(api)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=2) as response:
            return response.read() == b"true"
    except OSError:
        return False
