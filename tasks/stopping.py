"""A run that is told to end, by Ctrl-C or SIGTERM, ends at once, says where it was, and keeps what it computed."""

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

from tasks.progress import position

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; libraries treat it as they treat Ctrl-C."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` in the main thread on SIGTERM, where nobody else handles it."""
    if current_thread() is not main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_with_parent() -> None:
    """Let the kernel send SIGTERM to this process when its parent ends, where the kernel is Linux.

    Who ends `dvc repro` by SIGTERM ends `dvc` alone. Its stage would go on, and the next run would wait for it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put signals off that would end the run: what the block does takes a second and should not be cut in half."""
    if current_thread() is not main_thread():
        yield
        return
    late: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda got, _: late.append(got)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def stopped_words() -> str:
    """Return the line for a person who stopped a run."""
    where = position()
    return f"Stopped in {where}. Run again to go on." if where else "Stopped. Run again to go on."


def status_of(stop: BaseException) -> int:
    """Return the exit status that the shell expects of a process that a signal ended."""
    return 143 if isinstance(stop, Terminated) or type(stop).__name__ == "TerminationSignal" else 130


def _raise(number: int, frame: FrameType | None) -> None:
    # A second one, as when a whole group is told and the parent's end tells once more, must not cut off what keeps the
    # work that is done.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
