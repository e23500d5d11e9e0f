"""Which runs of this folder are alive, which died, and that only one works at a time.

All of it rests on locks of the kernel: they end with their process, however that ended, and are never left over.

    .dvc/tmp/regraft/run.lock              held by the run that works
    .dvc/tmp/regraft/runs/<run>.lock       held by a run for as long as it lives
    .dvc/tmp/regraft/runs/<run>.json       what it is, and in the end what it ended in
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regraft.core.errors import Busy, Damaged
from regraft.core.files import read_json, write_json

_FOLDER = Path(".dvc", "tmp", "regraft")
_RUNS = _FOLDER / "runs"
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class LiveRun:
    """What others may know of a run, also when its process is gone."""

    run: str
    started: str  # ISO 8601, UTC
    started_by: str
    pid: int
    flow_run: str | None = None  # its id at the Prefect server, if it reports to one
    ending: dict[str, Any] | None = None  # what the server is to be told of its end
    artifacts: list[dict[str, Any]] = field(default_factory=list)  # what the server could not be told before

    @property
    def named(self) -> str:
        """The run in words."""
        return f"the run started by {self.started_by} at {self.started[:16].replace('T', ' ')} UTC (process {self.pid})"


def new_live_run(run: str, started: datetime, started_by: str, flow_run: str | None) -> LiveRun:
    """Return what others may know of the run of this process."""
    return LiveRun(run, started.astimezone(UTC).isoformat(timespec="seconds"), started_by, os.getpid(), flow_run)


@contextmanager
def alive(run: LiveRun) -> Iterator[None]:
    """Let others see that this run is alive; its file stays when it ends, for the next run to tell of it."""
    from filelock import FileLock

    _RUNS.mkdir(parents=True, exist_ok=True)
    with FileLock(_RUNS / f"{run.run}.lock", timeout=0):
        save(run)
        yield


def save(run: LiveRun) -> None:
    """Write down what is known of a run."""
    write_json(_RUNS / f"{run.run}.json", asdict(run))


def forget(run: str) -> None:
    """Remove what is known of a run, once history and server know how it ended."""
    for suffix in (".json", ".lock"):
        with suppress(OSError):
            (_RUNS / f"{run}{suffix}").unlink()


def known_runs() -> list[LiveRun]:
    """Return the runs that live, or of whose end neither history nor server know yet."""
    return [run for path in sorted(_RUNS.glob("*.json")) if (run := _read(path))]


def ended_runs() -> list[LiveRun]:
    """Return the runs whose process is gone, oldest first, to be told of and then to `forget`."""
    from filelock import FileLock, Timeout

    ended = []
    for path in sorted(_RUNS.glob("*.json")):
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                run = _read(path)
        except Timeout:
            continue
        if run:
            ended.append(run)
        else:
            forget(path.stem)  # of another version, or told by another process just now
    return ended


@contextmanager
def only_run(run: LiveRun, minutes: float, say: Callable[[str], None]) -> Iterator[None]:
    """Work alone in this folder; another run is waited for.

    Args:
        run: the one that wants to work.
        minutes: how long another one is waited for.
        say: told once whom it waits for.

    Raises:
        Busy: the other one still works; it is named.
    """
    from filelock import FileLock, Timeout

    path = _FOLDER / "run.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    give_up, has_said = time.monotonic() + 60 * minutes, False
    lock = FileLock(path, timeout=0)
    while True:
        try:
            lock.acquire()
            break
        except Timeout:
            holder = _holder(path)
            if time.monotonic() > give_up:
                raise Busy(
                    f"{holder} still works in this folder, and nights.wait_minutes of params.yaml, {minutes:g}, are "
                    f"over. Wait for it to end, or end it, and run again: nothing is lost."
                ) from None
            if not has_said:
                say(f"Waiting for {holder}: one works at a time. What it does is not done twice.")
                has_said = True
            time.sleep(_LOOK_SECONDS)
    try:
        with suppress(OSError):  # in place: the lock belongs to this very file, and nothing depends on the text
            path.write_text(run.named)
        yield
    finally:
        lock.release()


def is_anybody_working() -> bool:
    """Whether a run works in this folder at the moment."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(_FOLDER / "run.lock", timeout=0):
            return False
    except (Timeout, FileNotFoundError) as error:
        return isinstance(error, Timeout)


def _holder(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:300].strip() or "another run"
    except OSError:
        return "another run"


def _read(path: Path) -> LiveRun | None:
    try:
        run = LiveRun(**read_json(path, "run"))
    except (Damaged, FileNotFoundError, TypeError):
        return None
    return run if run.run == path.stem else None
