"""How far a stage is: a bar on a terminal, lines in a log, and a progress artifact in the Prefect UI."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast
from uuid import UUID

if TYPE_CHECKING:
    from tqdm import tqdm

_ARTIFACT_SECONDS = 2.0  # between two updates of Prefect's progress artifact
_LINE_SECONDS = 10.0  # between two lines of a log

Report = Callable[[int, int], None]


class Progress(Protocol):
    """What a stage gets to say how far it is: `progress("photos")` returns a function of done and total."""

    def __call__(self, what: str) -> Report: ...


@contextmanager
def terminal_progress(name: str) -> Iterator[Progress]:
    """A progress bar on stderr; where stderr is no terminal, a line every ten seconds."""
    if not sys.stderr.isatty():
        yield lambda what: _Lines(name, what).report
        return
    bars = _Bars(name)
    try:
        yield lambda what: partial(bars.report, what)
    finally:
        bars.close()


@contextmanager
def prefect_progress(name: str) -> Iterator[Progress]:
    """Progress on the terminal and, every few seconds, as a progress artifact of this task run."""
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    with terminal_progress(name) as terminal:

        def progress(what: str) -> Report:
            on_terminal, pace = terminal(what), _Pace(what)
            artifact: UUID | None = None
            last = time.monotonic()

            def report(done: int, total: int) -> None:
                nonlocal artifact, last
                on_terminal(done, total)
                if not total:
                    return
                percent, words = 100.0 * done / total, f"{name}: {pace.words(done, total)}"
                if artifact is None:
                    key = re.sub(r"[^a-z0-9]+", "-", f"{name} {what} progress".lower())
                    artifact = cast(UUID, create_progress_artifact(percent, key=key, description=f"{name}: {what}"))
                elif done == total or time.monotonic() - last > _ARTIFACT_SECONDS:
                    update_progress_artifact(artifact, percent, description=words)
                else:
                    return
                last = time.monotonic()

            return report

        yield progress


class _Bars:
    """One bar at a time: it ends when it is complete or when something else is counted, and stays on the screen."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: tqdm | None = None
        self._what, self._is_complete = "", False

    def report(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self.close()
            self._what, self._is_complete = what, False
        if not total or (self._is_complete and done >= total):
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=self._name, unit=f" {what}", dynamic_ncols=True, mininterval=0.5)
        self._bar.update(done - self._bar.n)
        self._is_complete = done >= total
        if self._is_complete:
            self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Lines:
    """A line every ten seconds, and one at the end of what took longer than that."""

    def __init__(self, name: str, what: str) -> None:
        self._name, self._pace = name, _Pace(what)
        self._last: float | None = None
        self._has_begun = False

    def report(self, done: int, total: int) -> None:
        now, words = time.monotonic(), self._pace.words(done, total)
        if self._last is None:
            self._last = now
        is_last = self._has_begun and done >= total
        if is_last or now - self._last >= _LINE_SECONDS:
            print(f"{self._name}: {words}", file=sys.stderr, flush=True)
            self._last, self._has_begun = now, not is_last


class _Pace:
    """How fast something goes, from the first report on: what was done before that cost no time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._first: tuple[float, int] | None = None

    def words(self, done: int, total: int) -> str:
        """Say how far it is, how fast it goes, and how long it will take."""
        now = time.monotonic()
        start, done_before = self._first = self._first or (now, done)
        words = f"{done} of {total} {self._what} ({done / max(total, 1):.0%})"
        if done == done_before or now - start < _ARTIFACT_SECONDS:
            return words
        rate = (done - done_before) / (now - start)
        left = f", {timedelta(seconds=round((total - done) / rate))} left" if done < total else ""
        return f"{words}, {rate:.1f} a second{left}"
