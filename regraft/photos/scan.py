"""The scan: which files there are and what each holds, remembered so that an unchanged file is not read again.

A state is size, mtime, inode and ctime. The kernel sets ctime to the time of its clock whenever a file is written,
renamed, touched or given other times, and no program can set it, so a file of the same state has the same bytes.

Facts are filed by path, although a state alone would also recognise the files of a renamed folder. On file systems that
make inodes up and know times to two seconds (FAT, some network drives), two files that were unpacked together can have
one state; only the path keeps them apart. A file that was moved is read once more: that costs milliseconds.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from io import BufferedReader
from pathlib import Path
from typing import Any

from regraft.photos.decoder import DecodeLimits, ImageFacts
from regraft.photos.folder import open_inside
from regraft.photos.images import Threads
from regraft.photos.kinds import START_BYTES
from regraft.photos.known import ContentFacts, Learning
from regraft.photos.label_rows import LABELS_FILES
from regraft.photos.scan_facts import FileFacts, ScanCache, ScanFacts, Seen
from regraft.photos.slow_files import PatientInspectors, Undecoded, next_try, why_not_decoded

# A file may be written twice within one tick of the file system's clock (2 s on FAT, milliseconds elsewhere), and the
# second time leaves its state as it was. So a state says nothing while it is as young as that, as in git's index.
_SETTLED_NS = 2_000_000_000
_OF_IMAGE = [each.name for each in fields(ImageFacts)]


def scan(
    root: Path,
    paths: list[str],
    *,
    limits: DecodeLimits,
    threads: Threads,
    cache: Path | None,
    learning: Learning | None = None,
) -> ScanFacts:
    """Return what each file holds; only files that are new or changed since the last scan are read.

    Args:
        root: the data folder.
        paths: of the files, relative to it.
        limits: of decoding; a file that takes longer has a problem, and is tried again after a pause.
        threads: that read and decode; told how many files are done, and their total.
        cache: the Parquet file that remembers the facts between runs; None: nothing is remembered.
        learning: what is known of contents, by which a file that is read is not decoded; None: nothing is.
    """
    learning, before = learning or Learning(), ScanCache.opened(cache, limits.max_pixels)
    found, slow = _still_true(root, paths, before, limits)
    if len(found):
        threads.on_progress(len(found), len(paths))
    forgotten = len(before) - len(found)
    # Those that were too slow come last, those with the fewest attempts first: they take what time is left.
    last = sorted(slow, key=lambda path: (slow[path].attempts, slow[path].due, path))
    files = dict.fromkeys(path for path in paths if path not in found and path not in slow) | {
        path: slow[path] for path in last
    }
    try:
        for path, facts in _read_all(root, files, limits=limits, threads=threads, learning=learning):
            found.add({path: facts})
            learning.write_portion()
            threads.on_progress(len(found), len(paths))
    finally:
        learning.write()
        # Also after an interruption: a first scan takes a while, and what it found until then is as good as ever.
        if cache and (files or forgotten):
            found.write(cache, paths, limits.max_pixels)
    return found


def recall(root: Path, paths: list[str], *, limits: DecodeLimits, cache: Path) -> dict[str, FileFacts] | None:
    """Return what `scan` would without reading a file; None if it would have to read one."""
    before = ScanCache.opened(cache, limits.max_pixels)
    if len(before) < len(paths):
        return None
    found, _ = _still_true(root, paths, before, limits)
    return dict(found.items(paths)) if len(found) == len(paths) else None


def _still_true(
    root: Path, paths: Sequence[str], before: ScanCache, limits: DecodeLimits
) -> tuple[ScanFacts, dict[str, FileFacts]]:
    """Return what is known of unchanged files; and of those that are to be tried again, what was found before."""
    now, due = time.time_ns(), []
    today, rows = next_try(0, now), dict.fromkeys(paths, -1)
    for path, row, seen in before.seen():
        # Facts from the future are from before the clock was set back: times as they were then can come again.
        if path in rows and seen.moment <= now and _is_unchanged(f"{root}/{path}", seen):
            rows[path] = row
            if _is_due(seen, today, limits):
                due.append(path)
    slow = {path: before.facts_of(rows.pop(path)) for path in due}
    for path in [path for path, row in rows.items() if row < 0]:
        del rows[path]
    return ScanFacts(before, rows), slow


def _is_due(facts: Seen, today: str, limits: DecodeLimits) -> bool:
    """Whether a file that could not be decoded in time is to be tried again."""
    return bool(facts.due) and (facts.due <= today or limits.max_seconds > facts.seconds)


def _read_all(
    root: Path, files: Mapping[str, FileFacts | None], *, limits: DecodeLimits, threads: Threads, learning: Learning
) -> Iterator[tuple[str, FileFacts]]:
    """Yield what files hold; what `learning.readers` leave out or cannot open is read here."""
    left = dict(files)
    if learning.readers:
        for path, facts in learning.readers.read(root, files, limits, learning):
            if facts.digest:
                del left[path]
                yield path, facts
    with PatientInspectors(limits) as inspectors:
        read = Reading(root, inspectors, limits.max_seconds, learning)
        yield from zip(left, threads.map(lambda path: read(path, left[path]), left), strict=True)


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads and decodes files; safe to use from several threads."""

    root: Path
    inspectors: PatientInspectors
    max_seconds: float
    learning: Learning

    def __call__(self, path: str, before: FileFacts | None) -> FileFacts:
        """Return what a file holds; `before` is what is known of it if it was too slow."""
        try:
            with open_inside(self.root, path) as file:
                moment, status = time.time_ns(), os.fstat(file.fileno())
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                known = self.learning.find([digest]).get(digest)
                image = known or self._decoded(path, file, status.st_size, was_slow=before is not None)
                if _state(status) != _state((self.root / path).stat()):
                    return FileFacts(problem="it was replaced or written to while it was read; the next run reads it")
        except OSError as error:
            # Of the disk, the network, permissions or a busy machine, not of the file: next time it may be readable.
            return FileFacts(problem=f"cannot be read: {error.strerror}")
        # The state from before reading: whoever writes meanwhile changes it. A time in the future is none to go by
        # either: the clock was set back, or is another machine's.
        state = settled_state(status, moment)
        if isinstance(image, Undecoded):
            facts = FileFacts(digest=digest, bytes=status.st_size, state=state, moment=moment)
            return _put_off(facts, image, before.attempts if before else 0, self.max_seconds)
        if state and not known:  # without a state the digest may be that of other bytes
            self.learning.learn(digest, image)
        return file_facts(path, digest, image, state=state, moment=moment)

    def _decoded(self, path: str, file: BufferedReader, size: int, *, was_slow: bool) -> ContentFacts | Undecoded:
        if path not in LABELS_FILES:
            self.learning.count_decoded()
        image = self.inspectors.inspect(self.root / path, was_slow=was_slow)
        if isinstance(image, Undecoded):
            return image
        file.seek(0)
        return ContentFacts(**asdict(image), bytes=size, start=b"" if image.format else file.read(START_BYTES))


def file_facts(path: str, digest: str, contents: ContentFacts, *, state: str = "", moment: int = 0) -> FileFacts:
    """Return what a file of this name holds, by what is known of its bytes."""
    meant, problem = contents.judged(path)
    image: dict[str, Any] = {name: getattr(contents, name) for name in _OF_IMAGE}  # `asdict` takes ten times as long
    image["problem"] = problem
    seen = {"digest": digest, "bytes": contents.bytes, "meant_as_image": meant, "state": state, "moment": moment}
    return FileFacts(**image, **seen)


def _put_off(facts: FileFacts, undecoded: Undecoded, attempts: int, max_seconds: float) -> FileFacts:
    """What is remembered of a file that was not decoded: when it is tried again."""
    attempts += undecoded.was_tried
    due = next_try(attempts if undecoded.was_tried else 0, facts.moment)
    problem = why_not_decoded(undecoded.words, attempts, due) if undecoded.was_tried else undecoded.words
    return replace(facts, problem=problem, attempts=attempts, due=due, seconds=max_seconds)


def _is_unchanged(path: str, facts: Seen) -> bool:
    try:
        return facts.state == _state(os.stat(path))  # noqa: PTH116 - a Path per file takes longer than the call
    except OSError:
        return False


def settled_state(status: os.stat_result, moment: int) -> str:
    """Return the state of a file that was read at a moment, or nothing if it might stay while the bytes change."""
    is_settled = max(status.st_mtime_ns, status.st_ctime_ns) < moment - _SETTLED_NS
    return _state(status) if is_settled else ""


def _state(status: os.stat_result) -> str:
    # Text, because inodes use all 64 bits and times in nanoseconds may need more.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino} {status.st_ctime_ns}"
