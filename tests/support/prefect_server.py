"""A Prefect server of a test's or a benchmark's own, and what it knows about flow runs, as the UI shows them."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

_PATIENCE_SECONDS = 90.0
SOURCE = Path(__file__).parents[2]
IMPATIENT = {  # a server that looks more often for what did not happen
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
}


@dataclass(frozen=True, slots=True)
class Task:
    """A task run that has ended; times in seconds as those of `time.time`."""

    name: str
    start: float
    end: float
    outcome: str  # the name of its state


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    api: str
    password: str | None = None
    port: int = 0

    def tasks_of_last_flow_run(self) -> list[Task]:
        """Return the tasks of the flow run that started last, in the order in which they ran."""
        return self.tasks_of(self.last_flow_run()["id"])

    def last_flow_run(self) -> dict[str, Any]:
        """Return the flow run that started last, as the API describes it."""
        # A planned run counts as started at its planned time, unless it is left out.
        started = {"flow_runs": {"start_time": {"is_null_": False}}}
        (run,) = self.post("flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1} | started)
        return run

    def tasks_of(self, flow_run: str) -> list[Task]:
        """Return the tasks of a flow run, given its id, in the order in which they ran, once all have ended."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < give_up:
            tasks = self.post("task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})
            if tasks and all(task["end_time"] for task in tasks):
                return sorted((_task(task) for task in tasks), key=lambda task: task.start)
            time.sleep(0.2)  # what tasks did reaches the server's database a moment after the flow's end
        sys.exit(f"the Prefect server does not know the end of every task of flow run {flow_run}")

    def post(self, path: str, body: Any) -> Any:
        """Ask the API."""
        return self.ask("POST", path, body)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the API, or change something; None where the answer is empty."""
        headers = {"Content-Type": "application/json", "Prefect-Csrf-Client": "tests"}
        if self.password:
            headers["Authorization"] = f"Basic {base64.b64encode(self.password.encode()).decode()}"
            token = urllib.request.Request(f"{self.api}/csrf-token?client=tests", headers=headers)
            with urllib.request.urlopen(token, timeout=_PATIENCE_SECONDS) as response:
                headers["Prefect-Csrf-Token"] = json.load(response)["token"]
        request = urllib.request.Request(f"{self.api}/{path}", json.dumps(body).encode(), headers, method=method)
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as response:
                    text = response.read()
                    return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > give_up:  # 503: its database is locked at the moment
                    raise
                time.sleep(0.2)


@dataclass(frozen=True, slots=True)
class FlowRun:
    """What the UI shows of a flow run that has ended."""

    name: str
    state: str
    tags: list[str]
    task_states: dict[str, str]


def task_states(server: Server, flow_run: str) -> dict[str, str]:
    """Return the name of the state of every task of a flow run, given its id."""
    return {task.name: task.outcome for task in server.tasks_of(flow_run)}


def last_flow_run(server: Server) -> FlowRun:
    """Return the flow run that started last, when its end is known."""
    run = server.last_flow_run()
    return FlowRun(run["name"], run["state"]["name"], run["tags"], task_states(server, run["id"]))


@contextmanager
def running_server(
    folder: Path, environment: dict[str, str], *, guarded: bool = False, port: int | None = None
) -> Iterator[Server]:
    """Run a server until the block ends, which kills it; its log lies in `folder`, its database below PREFECT_HOME.

    Args:
        folder: of its log.
        environment: of its process.
        guarded: whether it is the one of `regraft serve --only server`, or Prefect's own without a password.
        port: where it listens; a free one if none is given.
    """
    port = port or free_port()
    plain = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    ours = [
        "-c",
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); "
        f"from flows.prefect_server.guarded_server import serve; serve({port})",
    ]
    log = folder / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *(ours if guarded else plain)],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/api"):
            if process.poll() is not None or time.monotonic() > give_up:
                sys.exit(f"the Prefect server did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.2)
        password = Path(environment["PREFECT_HOME"], "regraft-login").read_text().strip() if guarded else None
        yield Server(f"http://127.0.0.1:{port}/api", password, port)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its children too; its database is as short-lived
        process.wait()


def free_port() -> int:
    """Return a port of this machine that nobody uses at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _answers(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=2) as response:
            return response.read() == b"true"
    except OSError:
        return False


def _task(task: dict[str, Any]) -> Task:
    start, end = (datetime.fromisoformat(task[name]).timestamp() for name in ("start_time", "end_time"))
    return Task(task["name"].rsplit("-", 1)[0], start, end, task["state"]["name"])
