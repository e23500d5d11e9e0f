"""Which machine and which process this is, as others that use the same store can tell."""

import hashlib
import os
import re
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from regraft.core.files import open_regular, write_text

_OWNER = "regraft-owner"  # file in the store's folder


@dataclass(frozen=True, slots=True)
class Process:
    """This process; the host's name is for people only, since containers share names and numbers of processes."""

    host: str
    pid: int
    started: int  # ticks from the machine's start to the process's: another process with this number has another
    boot: str  # of the machine, made anew whenever it starts; empty where the system has none
    pid_namespace: str  # within which `pid` counts: a container has its own


def this_process() -> Process:
    """Return what this process is."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)[:100] or "unknown"
    pid = os.getpid()
    return Process(host, pid, started(pid) or 0, _boot(), _pid_namespace())


def uptime() -> float:
    """Return the seconds since the machine was started, which no setting of its clock changes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME if hasattr(time, "CLOCK_BOOTTIME") else time.CLOCK_MONOTONIC)


def started(pid: int) -> int | None:
    """Return when a process was started, in ticks after the machine's start; None if there is none, or no /proc."""
    try:
        # The name of the program, in parentheses, may hold spaces and parentheses itself.
        return int(
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
    except (OSError, ValueError, IndexError):
        return None


def is_running(pid: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def owner_of(root: Path, *, may_create: bool = True) -> str | None:
    """Return the name under which this machine keeps records for the store in `root`: 16 hexadecimal digits.

    A copy of the folder, on another machine or in another place, is another owner.
    """
    path = root / _OWNER
    number = _read_owner(path)
    if number is None:
        if not may_create:
            return None
        number = uuid.uuid4().hex
        write_text(path, number + "\n")
    return hashlib.sha256(f"{number} {_machine()} {root.resolve()}".encode(errors="surrogateescape")).hexdigest()[:16]


def _read_owner(path: Path) -> str | None:
    try:
        with open_regular(path) as file:
            number = file.read(100).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return number if re.fullmatch("[0-9a-f]{32}", number) else None


def _boot() -> str:
    return _first_line("/proc/sys/kernel/random/boot_id")


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _machine() -> str:
    return _first_line("/etc/machine-id") or socket.gethostname()


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()[:100]
    except (OSError, UnicodeDecodeError):
        return ""
