"""The scan: which files there are and what each holds, remembered so that an unchanged file is not read again.

    <cache>                 one row per file: its path, its state when it was read, and what was found in it
    <cache, as .seal>       SHA-256 over that file and over everything else that can change what is found

A state is size, mtime, inode and ctime. The kernel sets ctime to the time of its clock whenever a file is written,
renamed, touched or given other times, and no program can set it, so a file of the same state has the same bytes.

Facts are filed by path, although a state alone would also recognise the files of a renamed folder. On file systems that
make inodes up and know times to two seconds (FAT, some network drives), two files that were unpacked together can have
one state; only the path keeps them apart. A file that was moved is read once more: that costs milliseconds.

Both files can be deleted at any time. Damaged, or written by another version, they are as good as absent.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from io import BufferedReader
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regraft.files import fingerprint, write_bytes, write_text, writing
from regraft.photos.decoder import DecodeLimits, ImageFacts
from regraft.photos.folder import open_inside
from regraft.photos.images import Threads
from regraft.photos.kinds import START_BYTES
from regraft.photos.known import IMAGE_SCHEMA, ContentFacts, Learning
from regraft.photos.label_rows import LABELS_FILES
from regraft.photos.slow_files import PatientInspectors, Undecoded, next_try, why_not_decoded
from regraft.provenance import provenance_of

# A file may be written twice within one tick of the file system's clock (2 s on FAT, milliseconds elsewhere), and the
# second time leaves its state as it was. So a state says nothing while it is as young as that, as in git's index.
_SETTLED_NS = 2_000_000_000
_OF_IMAGE = [each.name for each in fields(ImageFacts)]
_PART = 20_000  # files at a time that become a table, or come from one: a million are in memory once


@dataclass(frozen=True, slots=True)
class FileFacts(ImageFacts):
    """What one file holds; nothing in it follows from the layout, so labels and splits are found afresh every time."""

    digest: str = ""  # SHA-256 of the file's bytes; empty if it cannot be read
    bytes: int = 0
    meant_as_image: bool = True
    state: str = ""  # of the file when it was read; empty if it must be read again
    moment: int = 0  # when that was, in nanoseconds since 1970
    attempts: int = 0  # that failed because decoding took too long or crashed
    due: str = ""  # the day from which it is tried again; empty if what was found is final
    seconds: float = 0.0  # that the last attempt was given


_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),
        *IMAGE_SCHEMA,
        pa.field("digest", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("meant_as_image", pa.bool_()),
        pa.field("state", pa.string()),
        pa.field("moment", pa.int64()),
        pa.field("attempts", pa.int64()),
        pa.field("due", pa.string()),
        pa.field("seconds", pa.float64()),
    ]
)


def scan(
    root: Path,
    paths: list[str],
    *,
    limits: DecodeLimits,
    threads: Threads,
    cache: Path | None,
    learning: Learning | None = None,
) -> dict[str, FileFacts]:
    """Return what each file holds; only files that are new or changed since the last scan are read.

    Args:
        root: the data folder.
        paths: of the files, relative to it.
        limits: of decoding; a file that takes longer has a problem, and is tried again after a pause.
        threads: that read and decode; told how many files are done, and their total.
        cache: the Parquet file that remembers the facts between runs; None: nothing is remembered.
        learning: what is known of contents, by which a file that is read is not decoded; None: nothing is.
    """
    learning = learning or Learning()
    before = _read(cache, limits.max_pixels) if cache else {}
    same = {path: facts for path in paths if (facts := before.get(path)) and _is_unchanged(f"{root}/{path}", facts)}
    today = next_try(0, time.time_ns())
    known = {path: facts for path, facts in same.items() if not _is_due(facts, today, limits)}
    # Those that were too slow come last, those with the fewest attempts first: they take what time is left.
    slow = sorted(same.keys() - known.keys(), key=lambda path: (same[path].attempts, same[path].due, path))
    reading = [path for path in paths if path not in same] + slow
    if known:
        threads.on_progress(len(known), len(paths))
    found = dict(known)
    try:
        files = {path: same.get(path) for path in reading}
        for path, facts in _read_all(root, files, limits=limits, threads=threads, learning=learning):
            found[path] = facts
            learning.write_portion()
            threads.on_progress(len(found), len(paths))
    finally:
        learning.write()
        # Also after an interruption: a first scan takes a while, and what it found until then is as good as ever.
        if cache and (reading or len(known) < len(before)):
            _write(cache, found, limits.max_pixels)
    return found


def recall(root: Path, paths: list[str], *, limits: DecodeLimits, cache: Path) -> dict[str, FileFacts] | None:
    """Return what `scan` would without reading a file; None if it would have to read one."""
    before, today = _read(cache, limits.max_pixels), next_try(0, time.time_ns())
    known = {path: before[path] for path in paths if path in before}
    if len(known) < len(paths) or any(_is_due(facts, today, limits) for facts in known.values()):
        return None
    return known if all(_is_unchanged(f"{root}/{path}", facts) for path, facts in known.items()) else None


def _is_due(facts: FileFacts, today: str, limits: DecodeLimits) -> bool:
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


def _is_unchanged(path: str, facts: FileFacts) -> bool:
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


def _read(cache: Path, max_pixels: int) -> dict[str, FileFacts]:
    """Return the facts of the last scan by path; none if they are damaged or of another version."""
    try:
        contents = cache.read_bytes()
        if cache.with_suffix(".seal").read_text() != _seal(contents, max_pixels):
            return {}
    except (OSError, ValueError):
        return {}
    # Facts from the future are from before the clock was set back: times as they were then can come again.
    now, found = time.time_ns(), {}
    for batch in pq.ParquetFile(pa.BufferReader(contents)).iter_batches(_PART):
        paths, *columns = (column.to_pylist() for column in batch.columns)
        facts = (FileFacts(*values) for values in zip(*columns, strict=True))
        found |= {path: fact for path, fact in zip(paths, facts, strict=True) if fact.moment <= now}
    return found


def _write(cache: Path, found: dict[str, FileFacts], max_pixels: int) -> None:
    lasting = [(path, facts) for path, facts in found.items() if facts.state]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, _SCHEMA) as writer:
        for start in range(0, max(1, len(lasting)), _PART):
            part = lasting[start : start + _PART]
            columns = [[getattr(facts, field.name) for _, facts in part] for field in fields(FileFacts)]
            writer.write_table(pa.table([[path for path, _ in part], *columns], schema=_SCHEMA))
    contents = sink.getvalue().to_pybytes()
    with writing(cache.parent, len(contents)):
        write_bytes(cache, contents)
        # Last: without it the other is not looked at.
        write_text(cache.with_suffix(".seal"), _seal(contents, max_pixels))


def _seal(contents: bytes, max_pixels: int) -> str:
    return fingerprint([hashlib.sha256(contents).hexdigest(), max_pixels, provenance_of(__name__).digest])
