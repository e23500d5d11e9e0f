"""How long what lies at an address may leave a question unanswered before it counts as unreachable.

The libraries behind fsspec try again for minutes, each by rules of its own, and some wait for ever. Here a call is
given up after a time that `machine.remote_timeout` sets for the whole process. A transfer that takes longer is not: it
may be large, or the network slow. While it goes on, a small question is asked now and then, and if that has no answer
in time either, nobody is there. A transfer that stands still while questions are answered ends as well, when it has
taken longer than its bytes take in a very slow network.
"""

import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

_TRANSFERS = {"get_file": 1, "put_file": 0}  # what may take long, with the place of the local file's path
_SLOWEST = 50_000  # bytes a second; less is no transfer
_AHEAD = 50_000_000  # bytes that may be under way while the local file shows none of them: a block of s3fs
_ALIVE = (FileNotFoundError, PermissionError)  # errors that somebody must have answered with
_seconds = [30.0]


def set_patience(seconds: float) -> None:
    """Say how long this process waits for an answer from now on."""
    _seconds[0] = seconds


class PatientFiles:
    """A file system of fsspec's whose calls are given up as the module says; then they raise TimeoutError.

    What was given up may still happen: it goes on behind, until its library or the process ends.
    """

    def __init__(self, files: Any, question: Callable[[Any], object]) -> None:
        """Take a file system, and how a small question is asked of it."""
        self._files, self._question = files, question

    def __getattr__(self, name: str) -> Any:
        """Return what the file system has of that name, its methods with patience."""
        found = getattr(self._files, name)
        return partial(self._call, name, found) if callable(found) else found

    def _call(self, name: str, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        begun, start = _begin(partial(method, *arguments, **named)), time.monotonic()
        while not _is_done(begun):
            is_slow = name in _TRANSFERS and time.monotonic() - start < _longest(arguments[_TRANSFERS[name]])
            if not is_slow or not self._is_somebody_there():
                raise _no_answer()
        return begun.result()

    def _is_somebody_there(self) -> bool:
        asked = _begin(partial(self._question, self._files))
        return _is_done(asked) and (asked.exception() is None or isinstance(asked.exception(), _ALIVE))


def within_patience(call: Callable[[], Any]) -> Any:
    """Return what a call returns; TimeoutError if it takes too long."""
    begun = _begin(call)
    if not _is_done(begun):
        raise _no_answer()
    return begun.result()


def _begin(call: Callable[[], Any]) -> Future[Any]:
    """Make a call in a thread that does not keep the process from ending."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # raised where its result is asked for
            future.set_exception(error)

    threading.Thread(target=work, name="address", daemon=True).start()
    return future


def _longest(local: str) -> float:
    """Return the seconds that the transfer of a local file may take, by what of it is there."""
    try:
        size = Path(local).stat().st_size
    except OSError:
        size = 0
    return _seconds[0] + (size + _AHEAD) / _SLOWEST


def _is_done(future: Future[Any]) -> bool:
    return bool(wait([future], timeout=_seconds[0]).done)


def _no_answer() -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
