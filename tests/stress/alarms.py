"""Every automation of automations.yaml, set off for real: processes that end, are killed, or never come.

    python -m tests.stress.alarms [--mail] [--quick]

A Prefect server, a worker, `regraft serve`, and a project whose retraining does nothing but end as it is told,
within the real frame of every run. What arrives at the webhook is printed, with the seconds that it took. The heartbeat
has its real 90 seconds; the hours of three other automations are seconds here. Exit status 1 if a message did not come,
or one came that nobody needs.

--mail   messages go to a mail server of this script, as to a mailbox
--quick  three missed heartbeats are 35 seconds
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.support.prefect_server import Server, running_server
from tests.support.project import REGRAFT, Command, Project, clean_environment
from tests.support.webhook import Received, mailbox, webhook

_SOURCE = ["regraft", "tasks", "flows", "params.yaml", "dvc.yaml", "prefect.yaml", "automations.yaml", "pyproject.toml"]
_SHORTER = {600: 20, 3600: 30, 93_600: 200}  # seconds in automations.yaml, and here
_PATIENCE = 120.0
_RETRAIN = '''\
"""Retrain: ends as it is told."""

import time

from flows.approval import wait_for_a_person
from flows.run import run
from regraft.core.errors import InvalidData
from regraft.production.gate.verdict import Verdict
from tasks.step import Outcome


@run
def retrain(promote: bool = True, commit: bool = False, end: str = "Undecided") -> Outcome | None:
    """Nothing."""
    if end == "Refused":
        return Outcome(end, "Refused: recall of class 'glass' fell from 0.91 to 0.78 (12 of 93 photos).", "CANCELLED")
    if end == "Failed":
        raise InvalidData("two classes need usable images. Found: 1 (cat, 40 images).")
    if end == "bug":
        raise ZeroDivisionError("division by zero")
    if end == "Waiting for approval":
        verdict = Verdict(end, False, "Promoted, if a person agrees: +0.3 points (-2.0 to +1.4).", {})
        return wait_for_a_person(verdict)
    if end == "killed":
        time.sleep(1000)
    return Outcome("Undecided", "Undecided: a loss of 0.02 is neither shown nor excluded.")
'''


@dataclass
class Night:
    """The project, its server and what has arrived."""

    project: Project
    server: Server
    received: Received
    worker: Command | None = None
    missing: list[str] = field(default_factory=list)

    def expect(self, what: str, subject: str, said: str, since: float, patience: float = _PATIENCE) -> None:
        """Wait for a message and print it."""
        give_up = time.monotonic() + patience
        while time.monotonic() < give_up:
            for message in self.received.about(subject):
                if said in message["body"] and not message.get("told"):
                    message["told"] = True
                    print(
                        f"\n## {what}: after {time.monotonic() - since:.1f} s\n{message['subject']}\n{message['body']}"
                    )
                    return
            time.sleep(0.1)
        self.missing.append(what)
        print(f"\n## {what}: NO MESSAGE with '{said}' within {patience:.0f} s", flush=True)

    def start_worker(self) -> None:
        """Start a worker, as `regraft serve` does."""
        self.worker = self.project.start(*REGRAFT, "prefect", "worker", "start", "--pool", "regraft", "--limit", "4")

    def deployment(self, name: str) -> str:
        """Return the id of a deployment."""
        (found,) = self.server.post("deployments/filter", {"deployments": {"name": {"any_": [name]}}})
        return found["id"]

    def plan(self, name: str = "retrain-nightly", **parameters: Any) -> str:
        """Ask for a run and return its id."""
        body = {"parameters": parameters} if parameters else {}
        return self.server.post(f"deployments/{self.deployment(name)}/create_flow_run", body)["id"]

    def wait_for_state(self, run: str, *names: str) -> str:
        """Return the state of a run, once it is one of these."""
        give_up = time.monotonic() + _PATIENCE
        while (state := self.server.ask("GET", f"flow_runs/{run}")["state_name"]) not in names:
            assert time.monotonic() < give_up, f"the run is {state}, not one of {names}"
            time.sleep(0.2)
        return state

    def kill_run(self, *, with_worker: bool) -> str:
        """Start a run and kill it by signal 9 in the middle, its worker too if asked for; return its id."""
        run = self.plan(end="killed")
        self.wait_for_state(run, "Running")
        time.sleep(2)  # its first heartbeat is on its way
        assert self.worker
        children = psutil.Process(self.worker.process.pid).children(recursive=True)
        for process in ([psutil.Process(self.worker.process.pid)] if with_worker else []) + children:
            if with_worker or _is_of(process, run):
                process.send_signal(signal.SIGKILL)
        return run


def _is_of(process: psutil.Process, run: str) -> bool:
    try:
        return process.environ().get("PREFECT__FLOW_RUN_ID") == run
    except psutil.Error:
        return False


def main() -> int:
    """Set off everything, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mail", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with _night(options.mail, 35 if options.quick else 90) as night:
        _set_off(night)
        unneeded = [each for each in night.received if not each.get("told")]
    for message in unneeded:
        print(f"\n## NOBODY NEEDS THIS\n{message['subject']}\n{message['body']}")
    print(f"\n{len(night.received)} messages; missing: {', '.join(night.missing) or 'none'}; unneeded: {len(unneeded)}")
    return 1 if night.missing or unneeded else 0


def _set_off(night: Night) -> None:
    begun = time.monotonic()
    night.start_worker()
    for end, what, subject, said in (
        ("Refused", "Refused", "refused", "fell from 0.91 to 0.78 (12 of 93 photos)"),
        ("Failed", "Failed, of the photos", "failed", "two classes need usable images"),
        ("bug", "Failed, of a defect", "failed", "division by zero"),
        ("Waiting for approval", "Waits for a person", "waits for your answer", "+0.3 points (-2.0 to +1.4)"),
    ):
        since, _ = time.monotonic(), night.plan(end=end)
        night.expect(what, subject, said, since)
    night.wait_for_state(night.plan(end="Undecided"), "Undecided")  # no message, but in the summary of the week
    since, _ = time.monotonic(), night.plan("verify-weekly")
    night.expect("Weekly summary, with the undecided ones", "the week", "undecided", since)
    announced = "from flows.prefect_server.events import announce; assert announce({!r}, {!r}, figure=2.1)"
    since = time.monotonic()
    night.project.succeed("python", "-c", announced.format("regraft.drift", "Brightness: 2.1 times its limit."))
    night.expect("Drift", "photos have changed", "2.1 times", since)
    since = time.monotonic()
    night.project.succeed("python", "-c", announced.format("regraft.data.changed", "12 files have come."))
    _expect_run(night, "retrain-on-new-data", since)
    since, run = time.monotonic(), night.kill_run(with_worker=False)
    night.expect("Crashed: kill -9 of the run", "crashed", run, since)
    since, run = time.monotonic(), night.kill_run(with_worker=True)
    late_since, late = time.monotonic(), night.plan()
    pending_since, pending = time.monotonic(), night.plan()
    state = {"type": "PENDING", "name": "Pending"}  # as by a worker that is killed just then
    night.server.post(f"flow_runs/{pending}/set_state", {"state": state, "force": True})
    night.expect("Never began", "crashed", pending, pending_since)
    night.expect("Late: no worker", "did not start", late, late_since)
    night.expect("No sign of life: kill -9 of run and worker", "crashed", run, since, 240)
    night.expect("No run for 26 hours (200 s here)", "26 hours", "No run has come to an end", time.monotonic(), 300)
    print(f"\n{time.monotonic() - begun:.0f} s in all")


def _expect_run(night: Night, deployment: str, since: float) -> None:
    give_up = time.monotonic() + _PATIENCE
    wanted = {"deployments": {"name": {"any_": [deployment]}}}
    while not night.server.post("flow_runs/filter", wanted) and time.monotonic() < give_up:
        time.sleep(0.2)
    runs = night.server.post("flow_runs/filter", wanted)
    if not runs:
        night.missing.append("New photos")
        return
    state = night.wait_for_state(runs[0]["id"], "Undecided")
    print(f"\n## New photos: a run of {deployment} after {time.monotonic() - since:.1f} s ended in {state}")


@contextmanager
def _night(mail: bool, heartbeats: int) -> Iterator[Night]:
    with tempfile.TemporaryDirectory(prefix="regraft-alarms-") as name, (mailbox if mail else webhook)() as received:
        folder = Path(name)
        (folder / "project").mkdir()
        environment = clean_environment(folder / "home")
        with running_server(folder, environment) as server:
            environment |= {"PREFECT_API_URL": server.api, "REGRAFT_ALARM_URL": received.address}
            project = Project(folder / "project", environment, patience=_PATIENCE)
            project.copy_source(_SOURCE)
            project.write("flows/retrain.py", _RETRAIN)
            shorter = _SHORTER | {90: heartbeats}
            text = project.read("automations.yaml")
            text = re.sub(r"within: (\d+)", lambda found: f"within: {shorter.get(int(found[1]), found[1])}", text)
            project.write("automations.yaml", text)
            for command in (["git", "init", "-q"], ["dvc", "init", "-q"], [*REGRAFT, "serve", "--only", "setup"]):
                print(project.succeed(*command).output, end="", flush=True)
            (project.root / "data/raw").mkdir(parents=True)
            project.set_param("promote.approve_hours", 0.005)  # 18 seconds
            try:
                yield Night(project, server, received)
            finally:
                project.end()


if __name__ == "__main__":
    os.environ.pop("REGRAFT_ALARM_URL", None)
    sys.exit(main())
