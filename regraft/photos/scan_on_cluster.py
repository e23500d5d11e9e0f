"""The scan on a cluster: workers read, fetch and decode photos, and answer what they found.

A worker opens files as this process does, in processes of its own with the same limits: a hostile file ends one of
those, and not the worker. It looks up what is known where it sees the store or reaches the shared one. This process
alone writes down what is new.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from regraft.cluster.connection import Cluster
from regraft.cluster.jobs import NotInSight, Seat, Work, work_on
from regraft.core.errors import printable
from regraft.photos.decoder import DecodeLimits
from regraft.photos.elsewhere import Elsewhere
from regraft.photos.fetching import Refused
from regraft.photos.folder import open_inside
from regraft.photos.images import Threads
from regraft.photos.in_sight import Fetched, not_in_sight, place_of, share_memory, with_spool
from regraft.photos.known import Findings, KnownFacts, Learning
from regraft.photos.labels_file import Found
from regraft.photos.scan import Reading, settled_state
from regraft.photos.scan_elsewhere import fetch_all
from regraft.photos.scan_facts import FileFacts
from regraft.photos.slow_files import PatientInspectors

_FEW = 64  # photos that this process reads while a cluster would be starting
_TRIED = 16  # files, until one can be read
_START_BYTES = 2**20  # of a file, by which a worker shows that it sees the same one
_PLACES = 8  # hosts that a worker tries

_Files = Sequence[tuple[str, FileFacts | None]]
_Photos = Sequence[tuple[Found, str | None]]


@dataclass(frozen=True, slots=True)
class ClusterReaders:
    """Readers of a scan; see `regraft.photos.known.Readers`."""

    cluster: Cluster
    store: Path
    known: Callable[[Path], KnownFacts] | None  # opens what is known in a store's folder; it can be pickled

    def read(
        self, root: Path, files: Mapping[str, FileFacts | None], limits: DecodeLimits, learning: Learning
    ) -> Iterator[tuple[str, FileFacts]]:
        """Yield what files hold; nothing where there are few, or where no worker sees their folder."""
        if len(files) >= _FEW:
            job = FileJob(root.absolute(), limits, self.known, _sample(root, files))
            try:
                for path, facts in self._results(job, list(files.items()), None, learning):
                    yield path, _as_seen_here(root / path, facts)
            except NotInSight:  # each worker was told about when it was refused
                self.cluster.tell(f"No worker of the cluster sees {root}: this process reads it.")

    def fetch(
        self, elsewhere: Elsewhere, photos: _Photos, limits: DecodeLimits, learning: Learning
    ) -> Iterator[tuple[str, FileFacts]]:
        """Yield what photos at addresses hold, or nothing where there are few."""
        if len(photos) >= _FEW:
            hosts: dict[str, str] = {}
            for photo, _ in photos:
                hosts.setdefault(place_of(photo.path), photo.path)
            job = FetchJob(elsewhere, limits, self.known, list(hosts.values())[:_PLACES])
            yield from self._results(job, photos, elsewhere, learning)

    def _results(
        self, job: "FileJob | FetchJob", items: _Files | _Photos, elsewhere: Elsewhere | None, learning: Learning
    ) -> Iterator[tuple[str, FileFacts]]:
        for part in work_on(self.cluster, job, items, store=self.store, name=_name):
            learning.note(part.findings)
            part.fetched.count(elsewhere)
            yield from part.facts


@dataclass(frozen=True, slots=True)
class _Part:
    """What a worker found in a part."""

    facts: list[tuple[str, FileFacts]]
    findings: Findings
    fetched: Fetched


def _sample(root: Path, files: Mapping[str, FileFacts | None]) -> tuple[str, str] | None:
    """Return a file that can be read, and what shows that it is the same; None if no one of the first can."""
    for path in list(files)[:_TRIED]:
        if mark := _mark_of(root, path):
            return path, mark
    return None


def _mark_of(root: Path, path: str) -> str | None:
    """Return the SHA-256 of how a file begins; None if it cannot be read."""
    try:
        with open_inside(root, path) as file:
            return hashlib.sha256(file.read(_START_BYTES)).hexdigest()
    except OSError:
        return None


def _as_seen_here(path: Path, facts: FileFacts) -> FileFacts:
    """Return the facts with the state that the file has on this mount: on a worker's, its inode may be another one."""
    try:
        state = settled_state(path.stat(), facts.moment)
    except OSError:
        state = ""
    is_same = state.split()[:2] == facts.state.split()[:2]  # size and mtime
    return replace(facts, state=state if is_same else "")


def _name(item: tuple[str | Found, Any]) -> str:
    return printable(item[0] if isinstance(item[0], str) else item[0].path)


# In a worker from here on.


@dataclass(frozen=True, slots=True)
class FileJob:
    """Read and decode files of the data folder."""

    root: Path  # the data folder, absolute
    limits: DecodeLimits
    known: Callable[[Path], KnownFacts] | None
    sample: tuple[str, str] | None  # a file of which the worker must see the same

    def begin(self, seat: Seat) -> Work:
        """Look for the data folder; RegraftError if it is not there."""
        if self.sample and _mark_of(self.root, self.sample[0]) != self.sample[1]:
            raise not_in_sight(self.sample[0], self.root)
        share_memory(seat.neighbours)
        learning = Learning(self.known and self.known(seat.folder))
        return partial(_read, self, Threads(seat.threads), learning)


@dataclass(frozen=True, slots=True)
class FetchJob:
    """Fetch and decode photos at addresses."""

    elsewhere: Elsewhere
    limits: DecodeLimits
    known: Callable[[Path], KnownFacts] | None
    samples: list[str]  # addresses whose hosts the worker must reach

    def begin(self, seat: Seat) -> Work:
        """Ask the hosts; RegraftError if one does not answer."""
        for url in self.samples:
            with suppress(Refused):  # of this photo alone: the host has answered
                self.elsewhere.etag_of(url)
        share_memory(seat.neighbours)
        elsewhere, learning = with_spool(self.elsewhere, seat), Learning(self.known and self.known(seat.folder))
        return partial(_fetch, elsewhere, Threads(seat.threads), learning, self.limits)


def _read(job: FileJob, threads: Threads, learning: Learning, files: _Files) -> _Part:
    with PatientInspectors(job.limits) as inspectors:
        read = Reading(job.root, inspectors, job.limits.max_seconds, learning)
        facts = list(threads.map(lambda file: (file[0], read(*file)), files))
    return _Part(facts, learning.take(), Fetched(0, 0))


def _fetch(elsewhere: Elsewhere, threads: Threads, learning: Learning, limits: DecodeLimits, photos: _Photos) -> _Part:
    before = Fetched.by(elsewhere)
    with PatientInspectors(limits) as inspectors:
        facts = list(fetch_all(elsewhere, photos, inspectors=inspectors, threads=threads, learning=learning))
    return _Part(facts, learning.take(), Fetched.by(elsewhere) - before)
