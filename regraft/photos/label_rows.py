"""The rows of labels.csv or labels.parquet, as texts by the names of their columns, with the place of each."""

import csv
import os
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from regraft.core.errors import InvalidData, is_invisible, printable, some
from regraft.core.files import readable_bytes
from regraft.photos.class_names import normalised
from regraft.photos.folder import open_inside
from regraft.photos.foreign_parquet import ForeignParquet, is_text, texts_of
from regraft.photos.photo_urls import NOT_SHOWN, carries_secret, may_hold_secret

LABELS_FILES = ("labels.csv", "labels.parquet")
OWN = ("path", "label", "split", "group", "sha256", "etag")  # columns with a meaning
Row = dict[str | None, Any]
_MOST_BYTES = 512 * 2**20  # several million photos; all lines are held in memory
_MOST_SLICES = 20
_MOST_CELL_BYTES = 255  # of a group or a slice, and of a slice's name; as of a class
_SHOWN = 60  # letters of a faulty one


def rows_of(root: Path, name: str) -> Iterator[tuple[str, Row]]:
    """Yield every row with its place; the first has the names of the columns, checked.

    Raises:
        InvalidData: it is no such table.
        OSError, csv.Error, pa.ArrowException: it cannot be read.
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
    if len(text.encode(errors="replace")) > _MOST_CELL_BYTES:
        return f"is longer than {_MOST_CELL_BYTES} bytes: {_start(text)}; shorten it"
    if carries_secret(text):
        return "is an address or a part of one, which may hold a secret, and is not shown; write a name in its place"
    if not is_plain and any(map(is_invisible, text)):
        return f"has a control character or another that cannot be seen: {_start(text)}; remove it"
    return None


def short_name(column: str) -> str:
    """The name of a column as it may stand in a message."""
    return NOT_SHOWN if may_hold_secret(column) else printable(column[:_SHOWN])


def _start(text: str) -> str:
    """The first letters of a cell, quoted, as they may stand in a message."""
    return NOT_SHOWN if may_hold_secret(text) else f"'{printable(text[:_SHOWN])}{'...' if text[_SHOWN:] else ''}'"


def _of_csv(file: BinaryIO, shown: str) -> Iterator[tuple[str, Row]]:
    with TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, strict=True)
        read = 0  # lines
        try:
            columns = [normalised(name) for name in reader.fieldnames or []]
            _check_columns(columns, shown, "start with the line path,label, and may name more columns there")
            reader.fieldnames = columns
            yield "line 1", dict(zip(columns, columns, strict=True))
            read = reader.line_num
            for row in reader:
                read = reader.line_num
                yield f"line {read}", row
        except csv.Error as error:
            raise csv.Error(f"{error}, in the row {f'after line {read}' if read else 'of line 1'}") from None
        except UnicodeDecodeError:
            # It was met somewhere ahead, since the file is read in larger pieces.
            raise csv.Error(f"line {_first_undecodable(file)} has bytes that are no letters in UTF-8") from None


def _first_undecodable(file: BinaryIO) -> int:
    file.seek(0)
    number = 0
    for lines in file:
        for line in lines.splitlines():
            number += 1
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return number


def _of_parquet(file: BinaryIO, shown: str) -> Iterator[tuple[str, Row]]:
    with ForeignParquet(file, shown) as table:
        names = table.schema.names
        columns = [normalised(name) for name in names]
        _check_columns(columns, shown, "have the columns path and label, and may have more")
        _check_kinds(table.schema, columns, shown)
        yield "row 1", dict(zip(columns, columns, strict=True))
        number = 0
        for batch in table.batches(names):
            for row in zip(*map(texts_of, batch.columns), strict=True):
                number += 1
                yield f"row {number}", dict(zip(columns, row, strict=True))


def _check_kinds(schema: pa.Schema, columns: list[str], shown: str) -> None:
    """Raise InvalidData if a column holds what cannot be written as text."""
    for kind, name in zip(schema.types, columns, strict=True):
        held = kind.value_type if pa.types.is_dictionary(kind) else kind
        is_number = pa.types.is_integer(held) or pa.types.is_boolean(held) or pa.types.is_floating(held)
        if not (is_number or is_text(held) or pa.types.is_null(held)):
            raise InvalidData(
                f"{shown}: column '{short_name(name)}' must hold texts, numbers or truth values. Received: {held}."
            )


def _check_columns(columns: list[str], shown: str, must: str) -> None:
    """Raise InvalidData unless path and label are among the columns, and all of them can be told apart."""
    received = f"'{printable(','.join(columns))}'"
    if not {"path", "label"} <= set(columns) or len(set(columns)) < len(columns):
        raise InvalidData(
            f"{shown} must {must}, each once: {', '.join(OWN[2:])}, and any others as slices. "
            f"Received: {NOT_SHOWN if any(map(may_hold_secret, columns)) else received}."
        )
    slices = [name for name in columns if name not in OWN]
    if problems := [
        f"line 1: column {columns.index(name) + 1} {problem}"
        for name in slices[: _MOST_SLICES + 1]
        if (problem := _wrong(name))
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
