"""Where a process can be killed: before each of its changes of a disk.

A step is what changes a folder: a file opened to be written, half and all of a write, a sync, a rename, a removal, a
link. Python tells of most of them by audit events, so the code that is killed knows nothing of it.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

_EVENTS = {"os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}


def strike_at(step: int, strike: Callable[[], Any]) -> Callable[[], int]:
    """Call `strike` before a step of this process, counted from now and from 1, and return what tells the count."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if done == step:
            strike()

    before_each(count)
    return lambda: done


def before_each(call: Callable[[], Any]) -> None:
    """Call something before every step of this process from now on."""
    write, sync = os.write, os.fsync

    def told(event: str, details: tuple[Any, ...]) -> None:
        if event in _EVENTS or (event == "open" and isinstance(details[0], str) and _writes(details[2])):
            call()

    def write_in_halves(file: int, data: bytes) -> int:
        half = len(data) // 2
        call()
        write(file, data[:half])
        call()
        return half + write(file, data[half:])

    def call_and_sync(file: int) -> None:
        call()
        sync(file)

    sys.addaudithook(told)
    os.write, os.fsync = write_in_halves, call_and_sync


def _writes(flags: Any) -> bool:
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
