"""The scan of photos that lie elsewhere: what is known of each is not fetched again, on no machine.

A photo is known by its SHA-256 if the table gives it, else by its address and ETag. If the table gives neither, the
server is asked for the ETag alone, one request per photo; where it has none, the photo is fetched.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice

from regraft.photos.decoder import DecodeLimits
from regraft.photos.elsewhere import Elsewhere, FetchedFile
from regraft.photos.fetching import Refused
from regraft.photos.images import Threads
from regraft.photos.kinds import START_BYTES
from regraft.photos.known import ContentFacts, Learning, Version
from regraft.photos.labels_file import Found
from regraft.photos.scan import file_facts
from regraft.photos.scan_facts import FileFacts
from regraft.photos.slow_files import PatientInspectors, Undecoded

_CONNECTIONS = 16  # photos that are fetched at a time, at least
_PORTION = 10_000  # photos whose facts are looked up at a time


def scan_elsewhere(
    photos: Sequence[Found], elsewhere: Elsewhere, *, limits: DecodeLimits, threads: Threads, learning: Learning
) -> dict[str, FileFacts]:
    """Return what each photo holds, by its address; only what nobody has decoded before is fetched.

    Args:
        photos: with addresses as paths.
        elsewhere: that reads them.
        limits: of decoding.
        threads: that decode; told how many photos are done, and their total.
        learning: what is known, and where what is new is noted.

    Raises:
        RegraftError: a server cannot be asked.
    """
    demanded = {photo.path: photo.etag for photo in photos}  # by the table; what a server says may change meanwhile
    photos = _with_etags(photos, elsewhere, _network(threads))
    digests = {photo.path: photo.sha256 for photo in photos if photo.sha256}
    versions = {version: photo.path for photo in photos if not photo.sha256 and (version := _version_of(photo))}
    digests |= {versions[version]: digest for version, digest in learning.digests_of(list(versions)).items()}
    found = _known(digests, learning)
    new = [photo for photo in photos if photo.path not in found]
    if found:
        threads.on_progress(len(found), len(photos))
    try:
        asked = [(photo, demanded[photo.path]) for photo in new]
        for path, facts in _inspect_all(elsewhere, asked, limits=limits, threads=threads, learning=learning):
            found[path] = facts
            learning.write_portion()
            threads.on_progress(len(found), len(photos))
    finally:
        learning.write()
    return found


def _inspect_all(
    elsewhere: Elsewhere,
    photos: Sequence[tuple[Found, str | None]],
    *,
    limits: DecodeLimits,
    threads: Threads,
    learning: Learning,
) -> Iterator[tuple[str, FileFacts]]:
    """Yield what photos hold; what `learning.readers` leave out or cannot fetch is fetched here."""
    done: set[str] = set()
    if learning.readers:
        for path, facts in learning.readers.fetch(elsewhere, photos, limits, learning):
            if facts.digest:
                done.add(path)
                yield path, facts
    left = [each for each in photos if each[0].path not in done]
    with PatientInspectors(limits) as inspectors:
        yield from fetch_all(elsewhere, left, inspectors=inspectors, threads=threads, learning=learning)


def fetch_all(
    elsewhere: Elsewhere,
    photos: Sequence[tuple[Found, str | None]],
    *,
    inspectors: PatientInspectors,
    threads: Threads,
    learning: Learning,
) -> Iterator[tuple[str, FileFacts]]:
    """Yield what photos hold, by address, in order; each is given with the ETag that the table demands."""
    fetch = _Fetch(elsewhere, inspectors, learning, threading.BoundedSemaphore(threads.count))
    yield from _network(threads).map(lambda each: (each[0].path, fetch.inspected(*each)), photos)


def _network(threads: Threads) -> Threads:
    return Threads(max(_CONNECTIONS, threads.count))


def _with_etags(photos: Sequence[Found], elsewhere: Elsewhere, network: Threads) -> list[Found]:
    """Ask for the ETags of photos of which the table says nothing; a photo that has none keeps none."""

    def etag_of(photo: Found) -> str | None:
        try:
            return elsewhere.etag_of(photo.path)
        except Refused:  # to fetch it says why
            return None

    unknown = [photo for photo in photos if not photo.sha256 and not photo.etag]
    etags = {photo.path: etag for photo, etag in zip(unknown, network.map(etag_of, unknown), strict=True)}
    return [replace(photo, etag=etags[photo.path]) if photo.path in etags else photo for photo in photos]


def _known(digests: Mapping[str, str], learning: Learning) -> dict[str, FileFacts]:
    """Return the facts of those photos that are known, by address."""
    found: dict[str, FileFacts] = {}
    rows = iter(digests.items())
    while portion := list(islice(rows, _PORTION)):  # a million at a time would be in memory twice
        known = learning.find([digest for _, digest in portion])
        found |= {path: file_facts(path, digest, known[digest]) for path, digest in portion if digest in known}
    return found


class _Fetch:
    """Fetches and inspects photos; safe to use from several threads."""

    def __init__(
        self,
        elsewhere: Elsewhere,
        inspectors: PatientInspectors,
        learning: Learning,
        processors: threading.BoundedSemaphore,
    ) -> None:
        self._elsewhere, self._inspectors, self._learning = elsewhere, inspectors, learning
        self._processors = processors  # as many inspectors as there are cores, however many photos are on their way

    def inspected(self, photo: Found, etag: str | None) -> FileFacts:
        """Return what a photo holds, or why it cannot be fetched; `etag` is what the table demands."""
        try:
            with self._elsewhere.fetched(photo.path, digest=photo.sha256, etag=etag) as file:
                return self._inspect(photo, file)
        except Refused as error:
            return FileFacts(problem=f"cannot be fetched: {error}")
        except OSError as error:
            return FileFacts(problem=f"cannot be read: {error.strerror}")

    def _inspect(self, photo: Found, file: FetchedFile) -> FileFacts:
        known = self._learning.find([file.digest])  # under another address, or without a number in the table
        if not known:
            with self._processors:
                self._learning.count_decoded()
                image = self._inspectors.inspect(file.path, was_slow=False)
            if isinstance(image, Undecoded):
                words = f"not decoded: {image.words}; tried again when photos are validated next"
                return FileFacts(digest=file.digest, bytes=file.size, problem=words)
            with file.path.open("rb") as opened:
                start = b"" if image.format else opened.read(START_BYTES)
            known[file.digest] = ContentFacts(**asdict(image), bytes=file.size, start=start)
            self._learning.learn(file.digest, known[file.digest])
        if file.etag:  # that of these very bytes, whatever the server said before
            self._learning.name((photo.path, file.etag), file.digest)
        return file_facts(photo.path, file.digest, known[file.digest])


def _version_of(photo: Found) -> Version | None:
    return (photo.path, photo.etag) if photo.etag else None
