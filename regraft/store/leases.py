"""Leases: who is using a store now, so that nothing is collected or merged meanwhile.

A lease is a small file in `<root>/leases`, and in the shared root. It is renewed by whoever reads or writes rows and
counts for ten minutes, so that a killed process keeps nobody waiting for longer. Readers and writers share a store;
whoever removes shards must be alone. Everybody writes the own lease first and looks at the others then, so of two that
exclude each other at least one sees the other.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from regraft.errors import Busy, RegraftError
from regraft.files import write_bytes
from regraft.store.remote import Remote

_STALE_SECONDS = 600  # longer than anything a stage does between two looks at the store
_RENEW_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Lease:
    """What a lease says."""

    host: str
    pid: int
    since: float  # seconds since 1970
    renewed: float
    is_alone: bool  # removes shards, and so excludes everybody else

    @property
    def is_live(self) -> bool:
        """Whether whoever holds it is still at work, as far as this machine can tell."""
        if time.time() - self.renewed > _STALE_SECONDS:
            return False
        return self.host != socket.gethostname() or is_running(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M} UTC"


@dataclass(slots=True)
class _Held:
    name: str
    remote: Remote | None
    since: float
    is_alone: bool
    renewed: float = 0.0


_held: dict[Path, list[_Held]] = {}  # by root; a namespace renews what its process holds without knowing who took it


@contextmanager
def store_in_use(root: Path, shared: str | None, *, alone: bool = False) -> Iterator[None]:
    """Keep `gc` and `compact` away from a store while the block runs, or with `alone` everybody.

    Args:
        root: the store's folder.
        shared: the shared root, or None.
        alone: for who removes shards.

    Raises:
        Busy: somebody is using the store who excludes this one; it names the host, the process and since when.
    """
    held = _Held(
        f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.json",
        Remote(shared) if shared else None,
        time.time(),
        alone,
    )
    key = root.resolve()
    _held.setdefault(key, []).append(held)
    try:
        _write(key, held)
        _refuse_if_excluded(root, held)
        yield
    finally:
        _held[key].remove(held)
        with suppress(OSError):
            (key / "leases" / held.name).unlink()
        if held.remote:
            with suppress(RegraftError):  # it is stale in ten minutes anyway
                held.remote.remove(f"leases/{held.name}")


def renew_lease(root: Path) -> None:
    """Renew what this process holds of a store, at most once a minute."""
    if not _held:
        return
    key = root.resolve()
    for held in _held.get(key, []):
        if time.time() - held.renewed > _RENEW_SECONDS:
            with suppress(RegraftError):  # reading goes on; there are nine more attempts before the lease is stale
                _write(key, held)


def _refuse_if_excluded(root: Path, held: _Held) -> None:
    """Raise Busy if another live lease excludes this one; remove stale ones."""
    remote = held.remote
    for name, contents in _leases(root, remote):
        if name == held.name:
            continue
        try:
            lease = Lease(**json.loads(contents))
        except (ValueError, TypeError):
            lease = Lease("?", 0, 0.0, 0.0, False)  # nothing that Regraft wrote
        if lease.is_live and not (held.is_alone or lease.is_alone):
            continue
        if lease.is_live:
            raise Busy(
                f"the store in {root} is in use by {lease}. Wait until it has finished, or end it; if its machine is "
                f"gone, its lease ends {_STALE_SECONDS // 60} minutes after it last used the store."
            )
        (root / "leases" / name).unlink(missing_ok=True)
        if remote:
            remote.remove(f"leases/{name}")


def is_running(pid: int) -> bool:
    """Whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write(root: Path, held: _Held) -> None:
    held.renewed = time.time()
    lease = Lease(socket.gethostname(), os.getpid(), held.since, held.renewed, held.is_alone)
    contents = json.dumps(asdict(lease)).encode()
    with suppress(PermissionError, OSError):  # who may not write to a store can still read it, without a lease
        write_bytes(root / "leases" / held.name, contents)
    if held.remote:
        held.remote.write(f"leases/{held.name}", contents)


def _leases(root: Path, remote: Remote | None) -> Iterator[tuple[str, bytes]]:
    for path in sorted((root / "leases").glob("*.json")):
        with suppress(FileNotFoundError):
            yield path.name, path.read_bytes()
    for name in remote.sizes("leases") if remote else ():
        contents = remote.read(f"leases/{name}") if remote else None
        if contents:
            yield name, contents
