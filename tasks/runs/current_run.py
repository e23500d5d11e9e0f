"""The run that this process is in: what it does, what a Prefect server is told meanwhile, and what is known at its end.

A server that goes away takes nothing with it: what it could not be told is kept with the run (`tasks.runs.live_runs`).
"""

import re
import secrets
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from regraft.core.errors import RegraftError, safe_text
from tasks.runs.live_runs import LiveRun, save
from tasks.runs.prefect_api import Api, ServerAway, ServerRefuses

_LONGEST = 300  # letters of a description, which the list of pages shows
_MOST_WORDS = 10_000  # letters of the sentence that a run ends with
_PAUSE_SECONDS = 20.0  # after a server did not answer, before it is told of progress again


@dataclass(frozen=True, slots=True)
class StageRun:
    """What became of one stage."""

    name: str
    outcome: str  # Up to date | Restored | Recorded | Ran | Failed | Stopped; of the gate, its verdict
    seconds: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run, from whatever started it to how it ended: receipt, history, pages and messages are made from it."""

    run: str  # as new_run_id makes it
    started: datetime  # UTC, as all times
    ended: datetime
    started_by: str  # the deployment's name, or "hand"
    name: str  # of the state that it ended in: a verdict, Completed, Failed, Cancelled
    words: str  # the sentence for a person: the verdict's, or what to do
    stages: tuple[StageRun, ...]  # in the order in which they were begun; those that were not reached are not in it
    url: str | None = None  # of the run in the Prefect UI

    @property
    def public_words(self) -> str:
        """The sentence as it may stand in git."""
        return safe_text(without_machine(self.words))[:_MOST_WORDS]


def new_run_id(at: datetime) -> str:
    """Return a name for a run that sorts by time, and that is a file's and a git reference's name as well."""
    return f"{at:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def without_machine(text: str) -> str:
    """Return a text without paths, user and host of this machine."""
    host = re.escape(socket.gethostname())
    text = re.sub(rf" by (user \d+|\S+) on {host}(?!\w)", "", text)  # as `tasks.promote` names who decided
    text = re.sub(rf" on {host}(?!\w)", " on this machine", text)
    for path, sign in ((Path.cwd(), "."), (Path.home(), "~")):
        if path != Path(path.anchor):
            text = re.sub(rf"{re.escape(str(path))}(?=[/\s.,:;'\")]|$)", sign, text)
    return text


@dataclass
class CurrentRun:
    """One run, while it goes on."""

    live: LiveRun
    api: Api | None = None  # the server that it reports to
    stages: list[StageRun] = field(default_factory=list)
    task_run: str | None = None  # id of the Prefect task that began last
    _progress: str | None = None  # id of the one progress artifact
    _quiet_until: float = 0.0

    @property
    def reports(self) -> bool:
        """Whether a server is there to report to, at this moment."""
        return self.api is not None and self.live.flow_run is not None and self.api.answers()

    def publish(self, key: str, markdown: str, description: str, *, task_run: str | None = None) -> None:
        """Show a page in the Prefect UI as an artifact of this run; where the server is away, later.

        Args:
            key: small letters, digits and dashes.
            markdown: the page.
            description: a line about it.
            task_run: the id of the task that it belongs to. Pages of the run itself stand before those of tasks.
        """
        if self.live.flow_run is None:
            return
        artifact = page_of(key, markdown, description) | ({"task_run_id": task_run} if task_run else {})
        try:
            self._send(artifact)
        except ServerRefuses as error:
            print(f"The page {key} is not shown: {error}", file=sys.stderr)
        except ServerAway:
            self.live = replace(self.live, artifacts=[*self.live.artifacts, artifact])
            with suppress(RegraftError):  # no room: it is sent with the end of the run, or lost with this process
                save(self.live)

    def tell_progress(self, percent: float, words: str) -> None:
        """Move the bar of this run; a server that does not answer is left alone for a while."""
        if self.live.flow_run is None or self.api is None or time.monotonic() < self._quiet_until:
            return
        bar = {"data": percent, "description": words}
        try:
            if self._progress:
                self.api.patch(f"artifacts/{self._progress}", bar)
            elif made := self._send({"key": "progress", "type": "progress", **bar}):
                self._progress = made["id"]
        except ServerAway:
            self._quiet_until = time.monotonic() + _PAUSE_SECONDS

    def end_progress(self) -> None:
        """Take the bar away: when a run has ended, its verdict is what a person looks for."""
        if self._progress and self.api:
            with suppress(ServerAway):
                self.api.delete(f"artifacts/{self._progress}")

    def _send(self, artifact: dict[str, Any]) -> Any:
        if self.api is None:
            raise ServerAway("no server was named")
        return self.api.post("artifacts/", artifact | {"flow_run_id": self.live.flow_run})


def page_of(key: str, markdown: str, description: str) -> dict[str, Any]:
    """Return an artifact of Prefect's: a page with a line about it."""
    line = " ".join(description.split())
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST].rsplit(' ', 1)[0]} ..."
    return {"key": key, "type": "markdown", "data": markdown, "description": line}


_current: list[CurrentRun] = []


def current_run() -> CurrentRun | None:
    """Return the run that this process is in; None in a stage that `dvc repro` started."""
    return _current[-1] if _current else None


def enter_run(run: CurrentRun) -> None:
    """Make a run the one of this process."""
    _current[:] = [run]


def leave_run() -> None:
    """End it."""
    _current.clear()
