"""What is known of a run when it has ended: receipts, history, pages and messages are all made from it."""

import secrets
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class StageRun:
    """What became of one stage."""

    name: str
    outcome: str  # Up to date | Restored | Recorded | Ran | Failed | Stopped; of the gate, its verdict
    seconds: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run, from whatever started it to how it ended."""

    run: str  # as new_run_id makes it
    started: datetime  # UTC, as all times
    ended: datetime
    started_by: str  # the deployment's name, or "hand"
    name: str  # of the state that it ended in: a verdict, Completed, Failed, Cancelled
    words: str  # the sentence for a person: the verdict's, or what to do
    stages: tuple[StageRun, ...]  # in the order in which they were begun; those that were not reached are not in it
    url: str | None = None  # of the run in the Prefect UI


def new_run_id(at: datetime) -> str:
    """Return a name for a run that sorts by time, and that is a file's and a git reference's name as well."""
    return f"{at:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
