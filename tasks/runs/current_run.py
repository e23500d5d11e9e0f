"""The run that this process is in, and what a Prefect server is told while it goes on.

A server that goes away takes nothing with it: what it could not be told is kept with the run (`tasks.runs.live_runs`).
"""

import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from regraft.core.errors import RegraftError
from tasks.runs.live_runs import LiveRun, save
from tasks.runs.prefect_api import Api, ServerAway, ServerRefuses
from tasks.runs.run_record import StageRun

_LONGEST = 300  # letters
_PAUSE_SECONDS = 20.0  # after a server did not answer, before it is told of progress again


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
        artifact = page_of(key, markdown, description)
        if task_run:
            artifact["task_run_id"] = task_run
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
        try:
            if self._progress is None:
                bar = {"key": "progress", "type": "progress", "data": percent, "description": words}
                made = self._send(bar)
                self._progress = made["id"] if made else None
            else:
                self.api.patch(f"artifacts/{self._progress}", {"data": percent, "description": words})
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
    """Return an artifact of Prefect's: a page with a line about it, which the list of pages shows."""
    return {"key": key, "type": "markdown", "data": markdown, "description": _short(description)}


def _short(words: str) -> str:
    """As much of a text as the list of pages in the UI should show of one."""
    line = " ".join(words.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST].rsplit(' ', 1)[0]} ..."


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
