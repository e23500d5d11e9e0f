"""Photos that lie elsewhere: a table names their addresses, and each is fetched when somebody needs its bytes.

A photo is streamed into the spool, within limits of size and time, and its SHA-256 is computed on the way. Where the
network fails it is tried again, a few times. What an address answers for good (there is no such photo, it has other
bytes than the table says, it leads elsewhere) is a matter of that photo alone; what may pass (a server that does not
answer, credentials that have expired) ends the run, and the next one goes on.
"""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft.core.config import Params
from regraft.core.errors import RegraftError, printable
from regraft.core.files import readable_bytes, writing
from regraft.photos.buckets import bucket_etag, open_in_bucket
from regraft.photos.fetching import Denied, FetchError, Opened, Refused, Unreachable, plain_etag
from regraft.photos.photo_urls import WEB, problem_of_url, scheme_of
from regraft.photos.spool import Spool

_SPOOL_GB = 10.0  # of fetched photos during a run; others are fetched again when they are needed
_MOST_BYTES = 512 * 2**20  # of a photo
_MOST_SECONDS = 120.0  # from the request to the last byte
_MOST_SLOW = 16  # photos that take longer, in one run
_PAUSES = (0.5, 2.0, 8.0)  # seconds before each further attempt


@dataclass(slots=True)
class Fetches:
    """What was fetched, counted."""

    photos: int = 0
    bytes: int = 0
    slow: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def as_report(self) -> dict[str, int]:
        """Return the figures as they stand in reports."""
        return {"photos_fetched": self.photos, "bytes_fetched": self.bytes}


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A photo that was fetched into a file."""

    path: Path
    digest: str  # SHA-256 of its bytes
    size: int
    etag: str | None


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """How photos at addresses are read; safe to use from several threads."""

    schemes: tuple[str, ...]  # that addresses may have
    may_be_private: bool  # whether hosts of the local network may be asked
    spool: Spool
    cache_bytes: float  # that stay in the spool after a run
    fetches: Fetches = field(default_factory=Fetches)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a process of another machine have the same, with counts of its own."""
        spool = self.spool.folder, self.spool.bound
        return _rebuilt, (self.schemes, self.may_be_private, spool, self.cache_bytes)

    def etag_of(self, url: str) -> str | None:
        """Return the ETag of a photo without fetching it; None where the server has none.

        Raises:
            Refused: of this photo alone.
            RegraftError: the server cannot be asked.
        """
        if scheme_of(url) in WEB:
            from regraft.photos.checked_http import http_etag

            return plain_etag(self._patiently(url, lambda: http_etag(url, may_be_private=self.may_be_private)))
        return plain_etag(self._patiently(url, lambda: bucket_etag(url)))

    @contextmanager
    def fetched(self, url: str, *, digest: str | None = None, etag: str | None = None) -> Iterator[FetchedFile]:
        """Fetch a photo and yield its file; afterwards the file stays in the spool if there is room.

        Args:
            url: its address.
            digest: the SHA-256 that its bytes must have.
            etag: the ETag that it must have.

        Raises:
            Refused: of this photo alone; it says why.
            RegraftError: the server cannot be asked, or the disk is full.
        """
        if problem := problem_of_url(url, self.schemes):
            raise Refused(problem)
        with writing(self.spool.folder):
            part = self.spool.new_file()
        try:
            file = self._patiently(url, lambda: self._fetch_into(part, url, digest, etag))
            if kept := self.spool.keep(part, file.digest):
                file = FetchedFile(kept, file.digest, file.size, file.etag)
            yield file
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def file_of(self, url: str, digest: str) -> Iterator[Path]:
        """Yield a file with the bytes of a photo, from the spool if it is there; raises as `fetched` does."""
        if found := self.spool.find(digest):
            yield found
            return
        with self.fetched(url, digest=digest) as file:
            yield file.path

    def trim(self) -> None:
        """End a run: of what was fetched stays what `machine.photo_cache` allows."""
        self.spool.trim(self.cache_bytes)

    def trim_abandoned(self) -> None:
        """Begin a run: of what was not used for a day stays what `machine.photo_cache` allows."""
        self.spool.trim(self.cache_bytes, abandoned_only=True)

    def _patiently(self, url: str, act: Any) -> Any:
        """Do something that the network may spoil, a few times; RegraftError where that does not help."""
        for pause in (*_PAUSES, None):
            try:
                return act()
            except Unreachable as error:
                if pause is None:
                    raise _unreached(url, error) from None
                time.sleep(pause)
            except Denied as error:
                raise _unreached(url, error) from None
        raise AssertionError

    def _fetch_into(self, part: Path, url: str, digest: str | None, etag: str | None) -> FetchedFile:
        hasher, size, until = hashlib.sha256(), 0, time.monotonic() + _MOST_SECONDS
        with self._open(url) as opened, writing(part.parent), part.open("wb") as file:
            found = plain_etag(opened.etag)
            if etag and found != etag:
                raise Refused(f"its bytes have changed: the table says ETag {etag}, and it has {_shown(found)}")
            _check_size(opened.size or 0)
            for data in opened.parts:
                size += len(data)
                _check_size(size)
                if time.monotonic() > until:
                    self._count_slow(url)
                    raise Refused(f"it takes longer than {_MOST_SECONDS:.0f} s to be fetched; the next run tries again")
                hasher.update(data)
                file.write(data)
        if opened.size is not None and size != opened.size:
            raise Unreachable(f"{size:,} bytes came of {opened.size:,}")
        with self.fetches.lock:
            self.fetches.photos += 1
            self.fetches.bytes += size
        if digest and hasher.hexdigest() != digest:
            raise Refused(f"its bytes have changed: expected SHA-256 {digest}, and it has {hasher.hexdigest()}")
        return FetchedFile(part, hasher.hexdigest(), size, found)

    def _open(self, url: str) -> AbstractContextManager[Opened]:
        if scheme_of(url) in WEB:
            from regraft.photos.checked_http import open_http

            return open_http(url, may_be_private=self.may_be_private)
        return open_in_bucket(url)

    def _count_slow(self, url: str) -> None:
        with self.fetches.lock:
            self.fetches.slow += 1
            if self.fetches.slow < _MOST_SLOW:
                return
        raise _unreached(url, Unreachable(f"{_MOST_SLOW} photos took longer than {_MOST_SECONDS:.0f} s each"))


def elsewhere_of(params: Params) -> Elsewhere:
    """Return how photos at addresses are read, as params.yaml says it."""
    machine = params.machine
    bound = max(_SPOOL_GB, machine.photo_cache) * 1e9
    spool = Spool(params.paths.store / "photos", bound)
    return Elsewhere(machine.photo_schemes, machine.photo_private_addresses, spool, machine.photo_cache * 1e9)


def _rebuilt(
    schemes: tuple[str, ...], may_be_private: bool, spool: tuple[Path, float], cache_bytes: float
) -> Elsewhere:
    return Elsewhere(schemes, may_be_private, Spool(*spool), cache_bytes)


def _check_size(size: int) -> None:
    if size > _MOST_BYTES:
        raise Refused(f"it is larger than {readable_bytes(_MOST_BYTES)}, which no photo may be")


def _shown(etag: str | None) -> str:
    return printable(etag)[:100] if etag else "none"


def _unreached(url: str, error: FetchError) -> RegraftError:
    """The error that ends a run; an address that was taken may be shown."""
    if isinstance(error, Denied):
        return RegraftError(
            f"{printable(url)} may not be read: {error}. Check the credentials in the environment: they are missing, "
            f"have expired or do not allow it. Where a bucket may not be listed, a photo that is not there is answered "
            f"the same way. What was read before is kept: run the same command again."
        )
    return RegraftError(
        f"{printable(url)} cannot be fetched: {error}, after {len(_PAUSES) + 1} attempts. Check the network and the "
        f"server. What was read before is kept: run the same command again."
    )
