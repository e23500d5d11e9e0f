"""A run that is told to end, by Ctrl-C or SIGTERM, ends at once, says where it was, and keeps what it computed."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread, current_thread, main_thread
from types import FrameType
from typing import Any

from tasks.progress import position

_SHELLS = {"sh", "ash", "bash", "busybox", "dash", "fish", "ksh", "zsh"}
_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_SECONDS = 5.0  # until a run that goes on is told again; what it keeps at its end takes less


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; libraries treat it as they treat Ctrl-C."""


class _Listener:
    """Takes the signals that end a run, and sees to it that they do.

    Some libraries have an `except:` that catches everything; tf2onnx goes on then with a graph that is another one. So
    what was told once is told again, and a stage does not count as done (`raise_if_stopped`).
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {number: signal.getsignal(number) for number in _NUMBERS}
        self._told, self._is_due = 0, False
        self._heard, self._repeater = Event(), Thread(target=self._tell_again, daemon=True)

    def __enter__(self) -> None:
        for number, handler in self._before.items():
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, self._tell)

    def __exit__(self, *_: object) -> None:
        self.hear()
        for number, handler in self._before.items():
            if handler is not None:
                signal.signal(number, handler)

    def hear(self) -> None:
        """Tell it no more: the run is ending."""
        self._heard.set()
        if self._repeater.is_alive():
            self._repeater.join(1)

    def raise_if_told(self) -> None:
        """Raise what the signal raised."""
        if self._told:
            self._raise(self._told, None)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        if self._told and number == signal.SIGTERM and not self._is_due:
            return  # a whole group was told, and the end of the parent tells once more: what is done is being kept
        if not self._told:
            self._told = number
            self._repeater.start()
        self._is_due = False
        self._raise(number, frame)

    def _tell_again(self) -> None:
        while not self._heard.wait(_AGAIN_SECONDS):
            self._is_due = True
            signal.pthread_kill(main_thread().ident or 0, self._told)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        handler = self._before[number]
        if callable(handler) and handler is not signal.default_int_handler:
            handler(number, frame)  # a worker's run has one of Prefect
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise Terminated


_listeners: list[_Listener] = []


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` in the main thread, where nobody else handles it, and end the run for certain."""
    if current_thread() is not main_thread() or _listeners:
        yield
        return
    listener = _Listener()
    with listener:
        _listeners.append(listener)
        try:
            yield
        finally:
            _listeners.remove(listener)


def raise_if_stopped() -> None:
    """Raise once more what a signal raised, if there was one: somebody may have caught it."""
    for listener in _listeners:
        listener.raise_if_told()


def end_with_dvc() -> None:
    """Send SIGTERM to this process when the `dvc` that started it ends, where the kernel is Linux.

    Who ends `dvc repro` by SIGTERM ends `dvc` alone. Its stage would go on, and the next run would wait for it.
    """
    if not hasattr(os, "pidfd_open"):
        return
    starter = _starter()
    try:
        descriptor = os.pidfd_open(starter)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGTERM)
        return
    Thread(target=_end_after, args=(descriptor,), daemon=True).start()


def _starter() -> int:
    """Return the number of the process that started this one, by a shell that may wait for it or have become it.

    DVC starts a command with the shell of `SHELL`. Many give their process to the command, and some live on beside it.
    """
    import psutil

    parent = psutil.Process().parent()
    while parent is not None and parent.name() in _SHELLS:
        parent = parent.parent()
    return os.getppid() if parent is None else parent.pid


def _end_after(descriptor: int) -> None:
    select.select([descriptor], [], [])  # readable when the process has ended
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put signals off that would end the run: what the block does takes a second and should not be cut in half."""
    if current_thread() is not main_thread():
        yield
        return
    for listener in _listeners:
        listener.hear()
    late: list[int] = []
    before = [signal.signal(number, lambda got, _: late.append(got)) for number in _NUMBERS]
    try:
        yield
    finally:
        for number, handler in zip(_NUMBERS, before, strict=True):
            signal.signal(number, handler)


def stopped_words() -> str:
    """Return the line for a person who stopped a run."""
    where = position()
    return f"Stopped in {where}. Run again to go on." if where else "Stopped. Run again to go on."


def status_of(stop: BaseException) -> int:
    """Return the exit status that the shell expects of a process that a signal ended."""
    return 143 if isinstance(stop, Terminated) or type(stop).__name__ == "TerminationSignal" else 130
