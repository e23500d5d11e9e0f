"""What a scan found in each file, and the cache that remembers it between runs.

    <cache>                 one row per file: its path, its state when it was read, and what was found in it
    <cache, as .seal>       SHA-256 over that file and over everything else that can change what is found

As objects, a million files take more than a gigabyte. So what is known of unchanged files stays in the cache, and in
memory there is the number of its row. Rows are in the order in which files are asked for, so each part is read once.
Both files can be deleted at any time. Damaged, or written by another version, they are as good as absent.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regraft.core.errors import RegraftError
from regraft.core.files import fingerprint, write_bytes, write_text, writing
from regraft.core.provenance import provenance_of
from regraft.photos.decoder import ImageFacts
from regraft.photos.known import IMAGE_SCHEMA

_PART = 20_000  # rows of a part of the cache, and files at a time
_DECIDES = "regraft.photos.scan"  # what is found follows from this module and all that it imports


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
assert [each.name for each in fields(FileFacts)] == _SCHEMA.names[1:]


@dataclass(frozen=True, slots=True)
class Seen:
    """When and how a file was read."""

    state: str
    moment: int
    due: str
    seconds: float


class ScanCache:
    """The cache as the last scan left it; it stays readable while another takes its place."""

    def __init__(self, file: pq.ParquetFile | None, path: Path | None = None) -> None:
        """Hold an open file, and where it lay; None: nothing is remembered."""
        self._file, self._path = file, path
        self._number, self._part = -1, list[FileFacts]()  # what was read last

    @classmethod
    def opened(cls, path: Path | None, max_pixels: int) -> "ScanCache":
        """Open what the last scan wrote; it holds nothing if it is damaged or of another version."""
        with suppress(OSError, ValueError):
            seal = path.with_suffix(".seal") if path else None
            file = pa.OSFile(str(path)) if path and path.is_file() else None  # a pipe would be waited for
            if file and seal and seal.is_file() and seal.read_text() == _seal(_digest(file), max_pixels):
                return cls(pq.ParquetFile(file), path)
        return cls(None)

    def __len__(self) -> int:
        return self._file.metadata.num_rows if self._file else 0

    def seen(self) -> Iterator[tuple[str, int, Seen]]:
        """Yield path and number of each row, and when and how the file was read."""
        for number in range(self._file.num_row_groups if self._file else 0):
            rows = self._rows(number, ["path", "state", "moment", "due", "seconds"])
            for row, (path, *seen) in enumerate(rows, number * _PART):
                yield path, row, Seen(*seen)

    def facts_of(self, row: int) -> FileFacts:
        """Return what a row says; rows side by side are read at once."""
        number, place = divmod(row, _PART)
        if number != self._number:
            self._number, self._part = number, []
            self._part = [FileFacts(*values) for values in self._rows(number, _SCHEMA.names[1:])]
        return self._part[place]

    def _rows(self, number: int, columns: list[str]) -> Iterator[tuple[Any, ...]]:
        assert self._file
        try:
            part = self._file.read_row_group(number, columns).select(columns)
        except OSError as error:  # Arrow's, too: of a network drive, where another machine has replaced the file
            raise RegraftError(
                f"{self._path} was there when the scan began and cannot be read any more: {error}. Run "
                f"again; if that is all the same, delete it: it only saves time."
            ) from error
        return zip(*(column.to_pylist() for column in part.columns), strict=True)


class ScanFacts:
    """What a scan found, by path: rows of the cache, and what was read since."""

    def __init__(self, cache: ScanCache, rows: dict[str, int]) -> None:
        """Begin with what is known.

        Args:
            cache: what the last scan found.
            rows: of files of which it is still true, by path.
        """
        self._cache, self._rows = cache, rows
        self._read: dict[str, FileFacts] = {}

    def __len__(self) -> int:
        return len(self._rows) + len(self._read)

    def __contains__(self, path: str) -> bool:
        return path in self._rows or path in self._read

    def add(self, facts: Mapping[str, FileFacts]) -> None:
        """Add what was found in files that are not in the cache, or are read again."""
        self._read |= facts

    def items(self, paths: Sequence[str]) -> Iterator[tuple[str, FileFacts]]:
        """Yield what was found in those of some files that were scanned; quickest in the order of the scan."""
        for path in paths:
            if path in self._read:
                yield path, self._read[path]
            elif path in self._rows:
                yield path, self._cache.facts_of(self._rows[path])

    def take(self, paths: Sequence[str]) -> dict[str, FileFacts]:
        """Return the same, and forget what is in memory alone."""
        found = dict(self.items(paths))
        for path in found:
            self._read.pop(path, None)
        return found

    def write(self, path: Path, paths: Sequence[str], max_pixels: int) -> None:
        """Make what was found the cache, in the order of `paths`; in memory stays what it does not hold."""
        lasting = (each for each in self.items(paths) if each[1].state)
        rows = count()
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, _SCHEMA) as writer:
            while part := list(islice(lasting, _PART)):
                columns = [[getattr(facts, name) for _, facts in part] for name in _SCHEMA.names[1:]]
                writer.write_table(pa.table([[name for name, _ in part], *columns], schema=_SCHEMA))
                self._rows.update((name, next(rows)) for name, _ in part)
        contents = sink.getvalue()
        digest = hashlib.sha256(contents).hexdigest()
        with writing(path.parent, len(contents)):
            write_bytes(path, memoryview(contents))
            # Last: without it the other is not looked at.
            write_text(path.with_suffix(".seal"), _seal(digest, max_pixels))
        file = pa.OSFile(str(path))
        # Clones share a store: another one may have written its own just now, whose rows are other files.
        mine = file if _digest(file) == digest else pa.BufferReader(contents)
        self._cache = ScanCache(pq.ParquetFile(mine), path)
        self._read = {path: facts for path, facts in self._read.items() if not facts.state}


def _digest(file: pa.NativeFile) -> str:
    """The SHA-256 of a file, which is left at its beginning."""
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest


def _seal(digest: str, max_pixels: int) -> str:
    return fingerprint([digest, max_pixels, provenance_of(_DECIDES).digest])
