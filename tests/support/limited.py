"""Run a command with limited memory and see what it and its children took."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.pipeline import ROOT

_EVERY = 0.1  # seconds between two looks
_CGROUPS = {  # folder of a new group -> its file with the limit, of version 1 and 2
    Path("/sys/fs/cgroup/memory"): "memory.limit_in_bytes",
    Path("/sys/fs/cgroup"): "memory.max",
}


@dataclass(slots=True)
class Took:
    """What a command took."""

    status: int | None = None  # None: it did not end in time
    seconds: float = 0.0
    run_bytes: int = 0  # largest resident memory of the command itself
    inspector_bytes: int = 0  # of one of its children
    together_bytes: int = 0  # of all at one moment
    said: str = ""  # the end of what it printed
    children: set[int] = field(default_factory=set)  # that ran when it ended


@contextmanager
def limit_of(size: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of a limit on memory, and what to put before a command to run it below that.

    A cgroup counts the memory of the command and of its children together, and its end is a kill. Where none can be
    made, each process has a limit on its address space, which is larger than the memory that it uses.
    """
    for parent, file in _CGROUPS.items():
        group = parent / f"regraft-{os.getpid()}"
        try:
            group.mkdir()
            (group / file).write_text(str(size))
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        try:
            yield "cgroup", ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
        finally:
            group.rmdir()
        return
    yield "RLIMIT_AS", ["sh", "-c", f'ulimit -v {size // 1024} && exec "$@"', "sh"]


def run_limited(command: list[str], folder: Path, *, before: list[str], patience: float) -> Took:
    """Run a command of this project in a folder.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        before: from `limit_of`.
        patience: seconds after which it hangs and is killed.
    """
    took, start = Took(), time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*before, *command],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        while process.poll() is None and time.monotonic() < start + patience:
            _look(psutil.Process(process.pid), took)
            time.sleep(_EVERY)
        took.status, took.seconds = process.poll(), time.monotonic() - start
        if took.status is None:
            process.kill()
            process.wait()
        output.seek(max(0, output.tell() - 4000))
        took.said = output.read().decode(errors="replace")
    return took


def _look(process: psutil.Process, took: Took) -> None:
    with suppress(psutil.Error):
        children = process.children(recursive=True)
        sizes = [_resident(child.pid) for child in children]
        own = _resident(process.pid)
        took.children = {child.pid for child in children}
        took.run_bytes = max(took.run_bytes, _resident(process.pid, "VmHWM:"))
        took.inspector_bytes = max(took.inspector_bytes, *(_resident(child.pid, "VmHWM:") for child in children), 0)
        took.together_bytes = max(took.together_bytes, own + sum(sizes))


def _resident(pid: int, name: str = "VmRSS:") -> int:
    """Resident memory of a process, now or (VmHWM) at most so far; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
