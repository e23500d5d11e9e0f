"""Photos without labels that a model is to be asked about: all of a folder, or those that a table names.

Others fill that folder as they like. So whatever must not be read is named, and keeps nobody from reading the rest.
"""

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from regraft.core.errors import InvalidData, printable
from regraft.photos.class_names import normalised
from regraft.photos.folder import walk_around
from regraft.photos.foreign_parquet import ForeignParquet, is_text, texts_of
from regraft.photos.labels_file import path_inside
from regraft.photos.photo_urls import NOT_SHOWN, carries_secret, may_hold_secret

COLUMN = "path"  # of a table
_TABLES = (".csv", ".parquet")
_MOST_BYTES = 512 * 2**20  # of a table, which is held in memory


@dataclass(frozen=True, slots=True)
class Incoming:
    """Which files there are."""

    folder: Path  # that all paths are relative to
    paths: list[str]  # of files that may be photos, sorted
    refused: dict[str, str]  # by path, or by what a table has in its place: why it is not looked at
    is_named: bool  # by a table: whatever a file turns out to be, it was meant as a photo


def find_incoming(photos: Path) -> Incoming:
    """Return the files of a folder, hidden ones left out, or those that a table names; none is opened.

    Args:
        photos: a folder; or a table as .csv or .parquet with a column `path`, relative to the folder that it lies in.

    Raises:
        InvalidData: there is neither, it may not be read, or it is no such table.
    """
    shown = printable(str(photos))
    if photos.is_file() and photos.suffix.lower() in _TABLES:
        return _named(photos.parent, _cells(photos, shown))
    if not photos.is_dir():
        raise InvalidData(
            f"score.photos in params.yaml is {shown}: expected a folder of photos, or a table (.csv or .parquet) with "
            f"a column `{COLUMN}`. There is neither."
        )
    if not os.access(photos, os.R_OK | os.X_OK):
        raise InvalidData(f"{shown} (score.photos in params.yaml) may not be read. Make it readable for this user.")
    files, refused = walk_around(photos)
    paths = sorted(path for path in files if not path.rpartition("/")[2].startswith("."))
    return Incoming(photos, paths, {printable(path): why for path, why in sorted(refused.items())}, is_named=False)


def _named(folder: Path, cells: Iterable[str]) -> Incoming:
    paths, refused = set(), {}
    for number, cell in enumerate(cells, 1):
        path = path_inside(cell.strip())
        if path and not carries_secret(cell):
            paths.add(path)
        else:
            shown = f"path {number} {NOT_SHOWN}" if may_hold_secret(cell) else printable(cell)
            refused[shown] = "a path must lie inside the folder of the table, relative to it, and have no query"
    return Incoming(folder, sorted(paths), refused, is_named=True)


def _cells(table: Path, shown: str) -> list[str]:
    """What the column of a table holds."""
    try:
        if table.stat().st_size > _MOST_BYTES:
            raise InvalidData(f"{shown} has more than {_MOST_BYTES // 2**20} MiB. Give it the column `{COLUMN}` alone.")
        return _of_csv(table) if table.suffix.lower() == ".csv" else _of_parquet(table)
    except OSError as error:
        raise InvalidData(f"{shown} cannot be read: {error.strerror or error}. Make it readable.") from None
    except (UnicodeDecodeError, csv.Error, pa.ArrowException, LookupError) as error:
        reason = printable(" ".join(str(error).split()))
        raise InvalidData(
            f"{shown} must be a table with a column `{COLUMN}` of text, as CSV in UTF-8 or as Parquet. Found: {reason}."
        ) from None


def _of_csv(table: Path) -> list[str]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        columns = [normalised(name) for name in reader.fieldnames or []]
        if columns.count(COLUMN) != 1:
            raise LookupError(f"the columns {', '.join(columns) or '(none)'}")
        reader.fieldnames = columns
        return [row[COLUMN] or "" for row in reader]


def _of_parquet(table: Path) -> list[str]:
    with table.open("rb") as file, ForeignParquet(file, printable(str(table))) as parquet:
        if parquet.schema.names.count(COLUMN) != 1:
            raise LookupError(f"the columns {', '.join(parquet.schema.names) or '(none)'}")
        kind = parquet.schema.field(COLUMN).type
        if not is_text(kind):
            raise LookupError(f"a column `{COLUMN}` of {kind}")
        return [text or "" for batch in parquet.batches([COLUMN]) for text in texts_of(batch.column(COLUMN))]
