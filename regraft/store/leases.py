"""Leases: who is using a store now, so that nothing is collected or merged meanwhile.

A lease is a small file in `<root>/leases`, and in the shared root. A thread renews it every minute, also during a long
computation, and it counts for ten minutes, so that a killed process keeps nobody waiting for longer. Readers and
writers share a store; whoever removes shards must be alone. Everybody writes the own lease first and looks at the
others then, so of two that exclude each other at least one sees the other.

How old a lease is says the store: when it was written, compared with the own lease that was written just now. Clocks
of machines may differ. On one machine, which a number made at its start tells and not its name, the time since that
start counts as well, and whether the process still runs.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from regraft.core.errors import Busy, RegraftError
from regraft.core.files import write_bytes, writing
from regraft.store.joining import open_shared
from regraft.store.lease import STALE_SECONDS, Lease, is_fresh
from regraft.store.machine import owner_of, this_process
from regraft.store.names import is_lease
from regraft.store.remote import Remote

_RENEW_SECONDS = 60
_LARGEST = 4096  # bytes


@dataclass(frozen=True, slots=True)
class StoreUse:
    """A use of a store, for as long as its lease is held."""

    root: Path
    remote: Remote | None
    lease: str  # name of the file
    since: float
    is_alone: bool

    def age(self, name: str, *, here: bool = True) -> float | None:
        """Return for how many seconds a file of the store has been as it is, by the clock of the store.

        Args:
            name: relative to the root; of two copies, here and in the shared root, the younger counts. None: there is
                none.
            here: whether a copy here counts.
        """
        ages, there = [], self.remote.modified if self.remote else _never
        for modified, base in ((_modified if here else _never, f"{self.root}/"), (there, "")):
            then = modified(f"{base}{name}")
            if then is not None:
                now = modified(f"{base}leases/{self.lease}")
                # Without an own lease, as in a folder that one may not write to, nothing is known to be old.
                ages.append(0.0 if now is None else now - then)
        return min(ages, key=abs, default=None)

    def renew(self) -> None:
        """Write the lease."""
        contents = Lease.made(this_process(), since=self.since, is_alone=self.is_alone).model_dump_json().encode()
        folder = self.root / "leases"
        try:
            with writing(folder, len(contents)):
                write_bytes(folder / self.lease, contents)
        except (RegraftError, OSError):
            # Who may not write to a store, or finds its disk full, can still read it, without a lease.
            if self.is_alone:
                raise
        if self.remote:
            self.remote.write(f"leases/{self.lease}", contents)

    def end(self) -> None:
        """Remove the lease."""
        with suppress(OSError):
            (self.root / "leases" / self.lease).unlink()
        if self.remote:
            with suppress(RegraftError):  # it is stale in ten minutes anyway
                self.remote.remove(f"leases/{self.lease}")

    def refuse_if_excluded(self) -> None:
        """Raise Busy if another live lease excludes this one; remove stale ones."""
        for name, copies in self._others().items():
            age = self.age(f"leases/{name}") or 0.0  # it may have ended just now
            leases = [Lease.read(contents) for contents in copies]
            known = next((lease for lease in leases if lease), None)
            is_live = known.is_live(age) if known else is_fresh(age)
            if is_live and (self.is_alone or (known and known.is_alone)):
                raise Busy(
                    f"the store in {self.root} is in use by "
                    f"{known or f'a process whose lease, leases/{name}, cannot be read'}. Wait until it has finished, "
                    f"or end it; if its machine is gone, its lease ends {STALE_SECONDS // 60} minutes after it was "
                    "last renewed."
                )
            if not is_live:
                (self.root / "leases" / name).unlink(missing_ok=True)
                if self.remote:
                    self.remote.remove(f"leases/{name}")

    def _others(self) -> dict[str, list[bytes]]:
        """Return the contents of all other leases; one may lie here, in the shared root, or in both."""
        found: dict[str, list[bytes]] = {}
        for path in sorted((self.root / "leases").glob("*.json")):
            if is_lease(path.name) and path.name != self.lease and path.is_file():
                with suppress(OSError):
                    found.setdefault(path.name, []).append(_read_start(path))
        for name, size in self.remote.sizes("leases").items() if self.remote else ():
            if is_lease(name) and name != self.lease and self.remote:
                contents = self.remote.read(f"leases/{name}") if size <= _LARGEST else b""
                if contents is not None:
                    found.setdefault(name, []).append(contents)
        return found


@contextmanager
def store_in_use(root: Path, shared: str | None, *, alone: bool = False) -> Iterator[StoreUse]:
    """Keep `gc` and `compact` away from a store while the block runs, or with `alone` everybody.

    Args:
        root: the store's folder.
        shared: the shared root, or None.
        alone: for who removes shards.

    Raises:
        Busy: somebody is using the store who excludes this one; it names the host, the process and since when.
        RegraftError: the shared root cannot be reached, or is not mounted.
    """
    remote = open_shared(root, shared, may_create=not alone) if shared else None
    process = this_process()
    name = f"{process.host}-{process.pid}-{uuid.uuid4().hex[:8]}.json"
    use = StoreUse(root.resolve(), remote, name, time.time(), alone)
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(use, ended), name="lease", daemon=True)
    try:
        use.renew()
        use.refuse_if_excluded()
        if remote:
            with writing(root):
                remote.write(f"uses/{owner_of(root)}.owner", process.host.encode())  # see `regraft.store.uses`
        renewal.start()
        yield use
    finally:
        ended.set()
        if renewal.is_alive():
            renewal.join(_RENEW_SECONDS)  # else it could write the lease again that is removed next
        use.end()


def _renew(use: StoreUse, ended: threading.Event) -> None:
    while not ended.wait(_RENEW_SECONDS):
        with suppress(RegraftError, OSError):  # work goes on; there are nine more attempts before the lease is stale
            use.renew()


def _modified(path: str) -> float | None:
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return None


def _never(_: str) -> None:
    """There is no other place."""


def _read_start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LARGEST)
