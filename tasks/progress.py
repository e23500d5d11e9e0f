"""How far a stage is: a bar on a terminal, lines in a log, and words to whoever follows the run."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tqdm import tqdm

_TOLD_SECONDS = 2.0  # between two words to whoever follows a run
_LINE_SECONDS = 10.0  # between two lines of a log

Report = Callable[[int, int], None]


class Progress(Protocol):
    """What a stage gets to say how far it is: `progress("photos")` returns a function of done and total."""

    def __call__(self, what: str) -> Report: ...


@contextmanager
def terminal_progress(name: str) -> Iterator[Progress]:
    """A progress bar on stderr; where stderr is no terminal, a line every ten seconds."""
    bars = _Bars(name) if sys.stderr.isatty() else None
    _position.enter(name)

    def progress(what: str) -> Report:
        show = partial(bars.report, what) if bars else _Lines(name, what).report

        def report(done: int, total: int) -> None:
            _position.count(what, done, total)
            show(done, total)

        return report

    try:
        yield progress
    finally:
        if bars:
            bars.close()


@contextmanager
def run_progress(name: str, tell: Callable[[float, str], None]) -> Iterator[Progress]:
    """Progress on the terminal and, every few seconds, where the run is followed.

    Args:
        name: of the stage.
        tell: is told how far it is, 0 to 100, in words too.
    """
    with terminal_progress(name) as terminal:

        def progress(what: str) -> Report:
            on_terminal, pace = terminal(what), _Pace(what)
            last = -_TOLD_SECONDS

            def report(done: int, total: int) -> None:
                nonlocal last
                on_terminal(done, total)
                now = time.monotonic()
                if total and (done == total or now - last > _TOLD_SECONDS):
                    last = now
                    tell(100.0 * done / total, f"{name}: {pace.words(done, total)}")

            return report

        yield progress


def position() -> str:
    """Return where this process is, as `fine_tune (epoch 3 of 10)`; empty where no stage has begun."""
    return _position.stage + (f" ({_position.counted})" if _position.counted else "")


def at(step: str) -> None:
    """Note which step this process does from now on."""
    _position.enter(step)


class _Position:
    """Where this process is: it runs one stage after the other."""

    stage = ""
    counted = ""

    def enter(self, stage: str) -> None:
        self.stage, self.counted = stage, ""

    def count(self, what: str, done: int, total: int) -> None:
        if total:
            self.counted = f"{done} of {total} {what}"


_position = _Position()


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
        if done == done_before or now - start < _TOLD_SECONDS:
            return words
        rate = (done - done_before) / (now - start)
        left = f", {timedelta(seconds=round((total - done) / rate))} left" if done < total else ""
        return f"{words}, {rate:.1f} a second{left}"
