"""The rows of labels.csv or labels.parquet, as texts by the names of their columns, with the place of each."""

import csv
import os
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regraft.errors import InvalidData, is_invisible, printable, some
from regraft.files import readable_bytes
from regraft.photos.class_names import normalised
from regraft.photos.folder import open_inside

LABELS_FILES = ("labels.csv", "labels.parquet")
OWN = ("path", "label", "split", "group", "sha256", "etag")  # columns with a meaning
Row = dict[str | None, Any]
_MOST_BYTES = 512 * 2**20  # several million photos; all lines are held in memory
_MOST_ROWS = 20_000_000
_MOST_UNPACKED = 4 * 2**30  # bytes of a Parquet file's columns, as it says
_MOST_LETTERS = 100_000  # of one cell, in bytes; the limit of the module csv is of that size too
_BATCH = 65_536  # rows of a Parquet file that are unpacked at a time
_MOST_SLICES = 20
_MOST_CELL_BYTES = 255  # of a group or a slice, and of a slice's name; as of a class
_SHOWN = 60  # letters of a faulty one


def rows_of(root: Path, name: str) -> Iterator[tuple[str, Row]]:
    """Yield every row with its place; the first has the names of the columns, checked.

    Raises:
        InvalidData: it is no such table.
        OSError, UnicodeDecodeError, csv.Error, pa.ArrowException: it cannot be read.
    """
    shown = printable(str(root / name))
    with open_inside(root, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MOST_BYTES:
            raise InvalidData(
                f"{shown} must have at most {readable_bytes(_MOST_BYTES)}. Received: {readable_bytes(size)}. Give "
                f"it one short line per photo."
            )
        yield from (_of_parquet if name.endswith(".parquet") else _of_csv)(file, shown)


def problem_of_cell(text: str) -> str | None:
    """What is wrong with the name or the value of a slice, or with a group, and what to do."""
    is_plain = text.isascii() and text.isprintable()  # of nearly all cells this is all there is to know
    if not is_plain and any(map(is_invisible, text)):
        return f"has a control character or another that cannot be seen: '{printable(text[:_SHOWN])}'; remove it"
    if len(text.encode()) > _MOST_CELL_BYTES:
        return f"is longer than {_MOST_CELL_BYTES} bytes: '{printable(text[:_SHOWN])}...'; shorten it"
    return None


def short_name(column: str) -> str:
    """The name of a column as it may stand in a message."""
    return printable(column[:_SHOWN])


def _of_csv(file: BinaryIO, shown: str) -> Iterator[tuple[str, Row]]:
    with TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, strict=True)
        columns = [normalised(name) for name in reader.fieldnames or []]
        _check_columns(columns, shown, "start with the line path,label, and may name more columns there")
        reader.fieldnames = columns
        yield "line 1", dict(zip(columns, columns, strict=True))
        for row in reader:
            yield f"line {reader.line_num}", row


def _of_parquet(file: BinaryIO, shown: str) -> Iterator[tuple[str, Row]]:
    schema = pq.read_schema(file)
    names = schema.names
    columns = [normalised(name) for name in names]
    _check_columns(columns, shown, "have the columns path and label, and may have more")
    texts = [name for name in names if pa.types.is_string(schema.field(name).type)]
    table = pq.ParquetFile(file, read_dictionary=texts)
    facts = table.metadata
    unpacked = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
    if facts.num_rows > _MOST_ROWS or unpacked > _MOST_UNPACKED:
        raise InvalidData(
            f"{shown} must have at most {_MOST_ROWS:,} rows and {readable_bytes(_MOST_UNPACKED)} unpacked. Received: "
            f"{facts.num_rows:,} rows, {readable_bytes(unpacked)}."
        )
    yield "row 1", dict(zip(columns, columns, strict=True))
    number = 0
    for batch in table.iter_batches(batch_size=_BATCH):
        cells = [_texts(batch.column(place), shown, name) for place, name in enumerate(columns)]
        for row in zip(*cells, strict=True):
            number += 1
            yield f"row {number}", dict(zip(columns, row, strict=True))


def _texts(column: pa.Array, shown: str, name: str) -> list[str | None]:
    """The cells of a column as texts; numbers and truth values are written out."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        # A dictionary of one long text would unpack to any size.
        values = column.dictionary if pa.types.is_dictionary(column.type) else column
        if (pc.max(pc.binary_length(values)).as_py() or 0) > _MOST_LETTERS:
            raise InvalidData(f"{shown} has a cell of more than {_MOST_LETTERS:,} letters in '{short_name(name)}'.")
        return column.cast(pa.string()).to_pylist()
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return column.cast(pa.string()).to_pylist()
    raise InvalidData(
        f"{shown}: column '{short_name(name)}' must hold texts, numbers or truth values. Received: {kind}."
    )


def _check_columns(columns: list[str], shown: str, must: str) -> None:
    """Raise InvalidData unless path and label are among the columns, and all of them can be told apart."""
    if not {"path", "label"} <= set(columns) or len(set(columns)) < len(columns):
        raise InvalidData(
            f"{shown} must {must}, each once: {', '.join(OWN[2:])}, and any others as slices. "
            f"Received: '{printable(','.join(columns))}'."
        )
    slices = [name for name in columns if name not in OWN]
    if problems := [
        f"line 1: column {columns.index(name) + 1} {problem}" for name in slices if (problem := _wrong(name))
    ]:
        raise InvalidData(f"{shown} has 1 line(s) to fix: {some(problems)}.")
    if len(slices) > _MOST_SLICES:
        raise InvalidData(
            f"{shown} must have at most {_MOST_SLICES} columns beside {', '.join(OWN)}. Received: {len(slices)}. "
            f"Remove those by which no figures are needed."
        )


def _wrong(name: str) -> str | None:
    """What is wrong with the name of a slice, and what to do."""
    if not name:
        return "has no name; give it one, or remove the column"
    own = name.casefold().removesuffix("s")
    if own in OWN:
        # A misspelt split would be a slice, and what should be tested would be trained on.
        return f"'{name}' may be meant as '{own}'; write it so, or give the slice another name"
    problem = problem_of_cell(name)
    return f"has a name that {problem}" if problem else None
