"""How long a stage may take. A run that hangs at night would hold up every night after it."""

import faulthandler
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType

from regraft.core.errors import RegraftError
from tasks.progress import position

_AGAIN_SECONDS = 10.0  # until a stage that goes on is interrupted again
_LONGEST_SECONDS = 1e9  # that timers take
_GRACE_SECONDS = 60.0  # for a stage to end by itself, once it was told to


class _TooLong(BaseException):
    """The time is over; no library that catches every Exception may take it for one of its own."""


@contextmanager
def within_hours(stage: str, hours: float) -> Iterator[None]:
    """Let a block, in the main thread, take so long; then it is interrupted wherever it is.

    C code that does not let itself be interrupted gets a minute more. Then the process prints where each of its threads
    is, and ends with exit status 1. Where the block does not run in the main thread, only this second limit holds.

    Args:
        stage: what runs, for the message.
        hours: the limit, `nights.stage_hours`.

    Raises:
        RegraftError: it took longer; it says where the block was.
    """
    seconds = min(3600 * hours, _LONGEST_SECONDS)
    is_main = current_thread() is main_thread()
    if sys.__stderr__ is not None:
        # A thread of C that needs nothing of Python, not even its lock. What hangs may hold that.
        faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, exit=True, file=sys.__stderr__)
    found: list[str] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        found.append(_line_of_ours(frame))
        raise _TooLong(found[0])

    before = signal.signal(signal.SIGALRM, interrupt) if is_main else None
    try:
        if is_main:  # again and again, since some libraries catch everything
            signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
        yield
        if found:
            raise _TooLong(found[0])
    except _TooLong as where:
        raise RegraftError(
            f"{stage} has taken {timedelta(seconds=round(seconds))}, which is nights.stage_hours of params.yaml, and "
            f"was stopped in {position() or stage}, at {where}. What it computed is kept: run again, and it goes on "
            f"there. If it needs longer, raise nights.stage_hours."
        ) from None
    finally:
        if is_main:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def _line_of_ours(frame: FrameType | None) -> str:
    """Return the innermost line of this project's code that a frame is in."""
    root = Path(__file__).parents[1]
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(root) and "site-packages" not in path.parts:
            return f"{path.relative_to(root)}:{frame.f_lineno}"
        frame = frame.f_back
    return "a line of a library"
