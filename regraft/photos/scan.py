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
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from regraft.files import fingerprint, sha256_of, write_bytes, write_text, writing
from regraft.photos.decoder import DecodeLimits, ImageFacts, Inspectors
from regraft.photos.images import Threads, looks_like_an_image
from regraft.provenance import provenance_of

# A file may be written twice within one tick of the file system's clock (2 s on FAT, milliseconds elsewhere), and the
# second time leaves its state as it was. So a state says nothing while it is as young as that, as in git's index.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class FileFacts(ImageFacts):
    """What one file holds; nothing in it follows from the layout, so labels and splits are found afresh every time."""

    digest: str = ""  # SHA-256 of the file's bytes; empty if it cannot be read
    bytes: int = 0
    meant_as_image: bool = True
    state: str = ""  # of the file when it was read; empty if it must be read again
    moment: int = 0  # when that was, in nanoseconds since 1970


_SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "format": pa.string(),
        "width": pa.int64(),
        "height": pa.int64(),
        "mode": pa.string(),
        "bit_depth": pa.int64(),
        "orientation": pa.int64(),
        "frames": pa.int64(),
        "brightness": pa.float64(),
        "contrast": pa.float64(),
        "sharpness": pa.float64(),
        "entropy": pa.float64(),
        "phash": pa.string(),
        "problem": pa.string(),
        "digest": pa.string(),
        "bytes": pa.int64(),
        "meant_as_image": pa.bool_(),
        "state": pa.string(),
        "moment": pa.int64(),
    }
)


def scan(
    root: Path,
    paths: list[str],
    *,
    limits: DecodeLimits,
    threads: Threads,
    cache: Path | None,
) -> dict[str, FileFacts]:
    """Return what each file holds; only files that are new or changed since the last scan are read.

    Args:
        root: the data folder.
        paths: of the files, relative to it.
        limits: of decoding; a file that takes longer has a problem, and is tried again next time.
        threads: that read and decode; told how many files are done, and their total.
        cache: the Parquet file that remembers the facts between runs; None: nothing is remembered.
    """
    before = _read(cache, limits.max_pixels) if cache else {}
    known = {path: facts for path in paths if (facts := before.get(path)) and _is_unchanged(f"{root}/{path}", facts)}
    new = [path for path in paths if path not in known]
    if known:
        threads.on_progress(len(known), len(paths))
    found = dict(known)
    try:
        with Inspectors(limits) as inspectors:
            inspected = threads.map(lambda path: _inspected(root / path, inspectors), new)
            for path, facts in zip(new, inspected, strict=True):
                found[path] = facts
                threads.on_progress(len(found), len(paths))
    finally:
        # Also after an interruption: a first scan takes a while, and what it found until then is as good as ever.
        if cache and (new or len(known) < len(before)):
            _write(cache, found, limits.max_pixels)
    return found


def _inspected(file: Path, inspectors: Inspectors) -> FileFacts:
    """Read and decode one file."""
    try:
        if not file.is_file():
            return FileFacts(problem="neither a file nor a folder")
        moment, before = time.time_ns(), file.stat()
        digest = sha256_of(file)
        image = inspectors.inspect(file)
        meant_as_image = image.problem is None or image.format is not None or looks_like_an_image(file)
    except OSError as error:
        # Of the disk, the network, permissions or a busy machine, not of the file: next time it may be readable.
        return FileFacts(problem=f"cannot be read: {error.strerror}")
    # The state from before reading: whoever writes meanwhile changes it. A time in the future is none to go by either:
    # the clock was set back, or is another machine's.
    settled = max(before.st_mtime_ns, before.st_ctime_ns) < moment - _SETTLED_NS
    return FileFacts(
        **asdict(image),
        digest=digest,
        bytes=before.st_size,
        meant_as_image=meant_as_image,
        state=_state(before) if settled else "",
        moment=moment,
    )


def _is_unchanged(path: str, facts: FileFacts) -> bool:
    try:
        return facts.state == _state(os.stat(path))  # noqa: PTH116 - a Path per file takes longer than the call
    except OSError:
        return False


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
    paths, *columns = (column.to_pylist() for column in pq.read_table(pa.BufferReader(contents)).columns)
    # Facts from the future are from before the clock was set back: times as they were then can come again.
    now = time.time_ns()
    facts = (FileFacts(*values) for values in zip(*columns, strict=True))
    return {path: fact for path, fact in zip(paths, facts, strict=True) if fact.moment <= now}


def _write(cache: Path, found: dict[str, FileFacts], max_pixels: int) -> None:
    lasting = {path: facts for path, facts in found.items() if facts.state}
    columns = [[getattr(facts, field.name) for facts in lasting.values()] for field in fields(FileFacts)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table([list(lasting), *columns], schema=_SCHEMA), sink)
    contents = sink.getvalue().to_pybytes()
    with writing(cache.parent, len(contents)):
        write_bytes(cache, contents)
        # Last: without it the other is not looked at.
        write_text(cache.with_suffix(".seal"), _seal(contents, max_pixels))


def _seal(contents: bytes, max_pixels: int) -> str:
    return fingerprint([hashlib.sha256(contents).hexdigest(), max_pixels, provenance_of(__name__).digest])
