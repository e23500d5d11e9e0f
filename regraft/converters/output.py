"""The table of photos, and the copies of photos beside it: whole or not at all.

What a source names is not trusted: only files within the photos' folder are opened, and only what begins as an image is
copied. A copy is named after its content, so no name in a source can overwrite a file. Copies wait in a hidden folder
of a random name until the table stands, since a folder of copies without a table would be taken for a class. After
`kill -9` that hidden folder stays; no training reads it.
"""

import csv
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Self

from regraft.converters.records import MOST_BYTES, NO_PHOTO, SCHEMES, LeftOut, Record, Row
from regraft.core.errors import InvalidData, RegraftError, is_invisible, printable
from regraft.core.files import check_room, folder_within, replacing
from regraft.photos.folder import open_inside
from regraft.photos.labels_file import path_inside
from regraft.photos.photo_urls import carries_secret, is_url, problem_of_url

_COPIES = "photos"  # the folder beside the table
_STAYS_FREE = 256 * 2**20  # bytes of the disk that copies leave to others
_ROWS = 20_000  # that a row group of a Parquet file holds, and that are in memory at once
_NO_IMAGE = "whose content is no image that is read"
_BAD_NAME = "whose path a table cannot hold: it leaves the folder, or has letters that cannot be seen"
_BAD_URL = "whose address a table must not hold: a user, a password, a query, `..` or an unknown scheme"
# By the first bytes; the formats that are read.
_SUFFIXES = {
    ".jpg": rb"\xff\xd8\xff",
    ".png": rb"\x89PNG\r\n\x1a\n",
    ".gif": rb"GIF8[79]a",
    ".webp": rb"RIFF....WEBP",
    ".tif": rb"II[*+]\0|MM\0[*+]",
    ".bmp": rb"BM....\0\0\0\0",
    ".avif": rb"....ftyp(....){0,30}?(avif|avis)",
    ".heic": rb"....ftyp(....){0,30}?(he[iv][cfxms]|mif[12]|msf1)",
    ".jp2": rb"\0\0\0\x0cjP  \r\n\x87\n",
    ".j2k": rb"\xff\x4f\xff\x51",
    ".ppm": rb"P[1-6]\s",
}


class Output:
    """Finds the photos of one source, copies those that lie elsewhere, and writes the table."""

    def __init__(self, table: Path, photos: Path | str, *, may_replace: bool) -> None:
        """Check that the table can be written.

        Args:
            table: a path that ends in .csv or .parquet.
            photos: the folder or address that names in the source are relative to.
            may_replace: whether a table that is there may be replaced.

        Raises:
            InvalidData: it has another ending, or is there and must stay.
        """
        shown = printable(str(table))
        if table.suffix.lower() not in (".csv", ".parquet"):
            raise InvalidData(f"the table must be named labels.csv or labels.parquet. Received: {shown}.")
        if table.exists() and not may_replace:
            raise InvalidData(f"{shown} is there already. Add --replace to write it anew, or name another one.")
        self._table, self._folder, self._photos = table, table.parent, photos
        inside, outside = Path(photos).resolve(), table.parent.resolve()
        is_below = isinstance(photos, Path) and inside.is_relative_to(outside)
        self._base = inside.relative_to(outside).as_posix() if is_below else None  # photos there stay
        self._waiting: Path | None = None  # made with the first copy
        self.copied: set[str] = set()  # names of the files that were written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting:
            shutil.rmtree(self._waiting, ignore_errors=True)

    def place(self, record: Record, left_out: LeftOut) -> tuple[str, str | None] | None:
        """Return path and SHA-256 of a photo, the second None for one at an address; None for one that is left out."""
        name, named = record.name, f"{record.where} ({record.name})"
        if record.content is not None:
            return self._copied(record.content, record.where, left_out)
        if not name:
            left_out.add(NO_PHOTO, record.where)
        elif is_url(name):
            return _address(name, named, left_out)
        elif carries_secret(name):
            left_out.add(_BAD_URL, named)
        elif path_inside(name) != name or any(map(is_invisible, name)):
            left_out.add(_BAD_NAME, named)
        elif isinstance(self._photos, str):
            return _address(f"{self._photos.rstrip('/')}/{name}", named, left_out)
        else:
            return self._found(self._photos, record, left_out)
        return None

    def remove(self, path: str) -> None:
        """Remove a copy that the table does not name."""
        name = PurePosixPath(path).name
        if path == f"{_COPIES}/{name}" and name in self.copied and self._waiting:
            (self._waiting / name).unlink()
            self.copied.remove(name)

    def write(self, rows: Iterable[Row], columns: Sequence[str], slices: Sequence[str]) -> None:
        """Write the table, then move the copies to their place.

        Args:
            rows: in their order; they are asked for one by one.
            columns: those of split, group, sha256 and etag that the table has.
            slices: the names of the further columns, in the order in which rows have them.
        """
        names = ["path", "label", *columns, *slices]
        cells = ([row.path, row.label, *(getattr(row, name) for name in columns), *row.slices] for row in rows)
        with replacing(self._table) as temporary:
            if self._table.suffix.lower() == ".csv":
                with temporary.open("w", encoding="utf-8", newline="") as file:
                    writer = csv.writer(file, lineterminator="\n")
                    writer.writerows([names])
                    writer.writerows(cells)  # None is an empty cell
            else:
                _write_parquet(temporary, cells, names)
        if self._waiting:
            target = folder_within(self._folder, _COPIES)
            for name in sorted(self.copied):
                (self._waiting / name).replace(target / name)

    def _found(self, photos: Path, record: Record, left_out: LeftOut) -> tuple[str, str] | None:
        for folder in record.folders:
            name = str(PurePosixPath(folder, record.name))
            where = f"{record.where} ({name})"
            try:
                with open_inside(photos, name) as file:
                    if os.fstat(file.fileno()).st_size > MOST_BYTES:
                        left_out.add("larger than 1 GiB", where)
                        return None
                    content = file.read()
            except (OSError, ValueError):
                continue
            if self._base is None:
                return self._copied(content, where, left_out)
            if _suffix(content):
                return str(PurePosixPath(self._base, name)), hashlib.sha256(content).hexdigest()
            left_out.add(_NO_IMAGE, where)
            return None
        left_out.add("of which there is no file that may be read", f"{record.where} ({record.name})")
        return None

    def _copied(self, content: bytes, where: str, left_out: LeftOut) -> tuple[str, str] | None:
        """Write a photo to the copies, unless it is beside the table already."""
        suffix, digest = _suffix(content), hashlib.sha256(content).hexdigest()
        if not suffix:
            left_out.add(_NO_IMAGE, where)
            return None
        name, folder = f"{digest}{suffix}", self._folder / _COPIES
        if os.path.lexists(folder):
            folder_within(self._folder, _COPIES)  # a link is refused before anything is written
        if (folder / name).is_dir():
            raise RegraftError(f"{folder / name} is a folder. Expected a photo, or nothing. Move it away.")
        if name not in self.copied and not _holds(folder / name, digest):
            check_room(self._folder, len(content) + _STAYS_FREE, "a photo of the source and what must stay free")
            if self._waiting is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._waiting = Path(tempfile.mkdtemp(prefix=".photos-of-a-conversion-", dir=self._folder))
            # Not forced to the disk one by one: the table has its SHA-256.
            (self._waiting / name).write_bytes(content)
            self.copied.add(name)
        return f"{_COPIES}/{name}", digest


def _holds(file: Path, digest: str) -> bool:
    """Whether a file that is no link has the content of this SHA-256."""
    return file.is_file() and not file.is_symlink() and hashlib.sha256(file.read_bytes()).hexdigest() == digest


def _address(url: str, where: str, left_out: LeftOut) -> tuple[str, None] | None:
    if not problem_of_url(url, SCHEMES):
        return url, None
    left_out.add(_BAD_URL, where)
    return None


def _suffix(content: bytes) -> str | None:
    return next((suffix for suffix, start in _SUFFIXES.items() if re.match(start, content, re.DOTALL)), None)


def _write_parquet(out: Path, cells: Iterable[list[str | None]], names: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, cells = pa.schema([(name, pa.string()) for name in names]), iter(cells)
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        while batch := list(islice(cells, _ROWS)):
            writer.write_table(pa.table([pa.array(each, pa.string()) for each in zip(*batch, strict=True)], names))
