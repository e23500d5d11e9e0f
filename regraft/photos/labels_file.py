"""labels.csv: what a person says of each photo: its label, and if they like its split, its group and slices.

A group is a patient, a session, an object: photos that must not be parted. Any other column is a slice, by which
figures are reported: a camera, a site, a season.
"""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path, PurePosixPath
from typing import Any

from regraft.errors import InvalidData, is_invisible, printable, some
from regraft.files import readable_bytes
from regraft.photos.class_names import normalised, problem_of
from regraft.photos.dataset import Split
from regraft.photos.folder import open_inside

LABELS_FILE = "labels.csv"
SPLIT_NAMES: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MOST_BYTES = 512 * 2**20  # several million photos; all lines are held in memory
_OWN = ("path", "label", "split", "group")  # columns with a meaning
_MOST_SLICES = 20
_MOST_CELL_BYTES = 255  # of a group or a slice, and of a slice's name; as of a class
_SHOWN = 60  # letters of a faulty one


@dataclass(frozen=True, slots=True)
class Found:
    """A file and what the layout says of it; `reason` is set where the layout gives it no label."""

    path: str  # relative to the data folder, with forward slashes
    label: str | None = None
    split: str | None = None
    reason: str | None = None
    group: str | None = None
    slices: tuple[str | None, ...] = ()  # one value for each of `Labels.slices`, None where the cell is empty


@dataclass(frozen=True, slots=True)
class Labels:
    """What labels.csv says."""

    listed: dict[str, Found]  # by path
    slices: list[str]  # names of the columns, in their order
    has_groups: bool  # whether there is a column of groups


def read_labels(root: Path) -> Labels:
    """Return what labels.csv in a data folder says; whether the files are there is not looked at.

    Raises:
        InvalidData: it cannot be read, is no such table, or has lines to fix.
    """
    shown = printable(str(root / LABELS_FILE))
    listed: dict[str, Found] = {}
    problems = []
    try:
        rows = _rows(root, shown)
        _, columns = next(rows)
        slices = [name for name in columns.values() if name not in _OWN]
        for line, row in rows:
            try:
                found = _listed(row, slices)
                if found.path in listed:
                    raise ValueError(f"{found.path} is listed twice")
                listed[found.path] = found
            except ValueError as error:
                problems.append(f"line {line}: {error}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidData(f"{shown} is not a CSV file in UTF-8: {printable(str(error))}. Save it as such.") from None
    except OSError as error:
        raise InvalidData(f"{shown} cannot be read: {error.strerror}. Make it readable.") from None
    if problems:
        raise InvalidData(f"{shown} has {len(problems)} line(s) to fix: {some(problems)}.")
    return Labels(listed, slices, "group" in columns.values())


def path_inside(text: str) -> str | None:
    """Return a path that a table names, with forward slashes; None if it may leave the folder that it belongs to."""
    # Backslashes are separators to the people who write them, and would hide a `..` from the check below.
    path = PurePosixPath(text.replace("\\", "/"))
    is_inside = path.parts and not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]
    return str(path) if is_inside else None


def _rows(root: Path, shown: str) -> Iterator[tuple[int, dict[str | None, Any]]]:
    """Yield every row with the number of its last line; the first has the names of the columns, checked."""
    with open_inside(root, LABELS_FILE) as file, TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        size = os.fstat(file.fileno()).st_size
        if size > _MOST_BYTES:
            raise InvalidData(
                f"{shown} must have at most {readable_bytes(_MOST_BYTES)}. Received: {readable_bytes(size)}. Give "
                f"it one short line per photo."
            )
        reader = csv.DictReader(text, strict=True)
        columns = [normalised(name) for name in reader.fieldnames or []]
        _check_columns(columns, shown)
        reader.fieldnames = columns
        yield 1, dict(zip(columns, columns, strict=True))
        for row in reader:
            yield reader.line_num, row


def _check_columns(columns: list[str], shown: str) -> None:
    """Raise InvalidData unless the first line names path and label, and all columns can be told apart."""
    if not {"path", "label"} <= set(columns) or len(set(columns)) < len(columns):
        raise InvalidData(
            f"{shown} must start with the line path,label, and may name more columns there, each once: split, group, "
            f"and any others as slices. Received: '{printable(','.join(columns))}'."
        )
    slices = [name for name in columns if name not in _OWN]
    if problems := [
        f"line 1: column {columns.index(name) + 1} {problem}" for name in slices if (problem := _wrong(name))
    ]:
        raise InvalidData(f"{shown} has 1 line(s) to fix: {some(problems)}.")
    if len(slices) > _MOST_SLICES:
        raise InvalidData(
            f"{shown} must have at most {_MOST_SLICES} columns beside {', '.join(_OWN)}. Received: {len(slices)}. "
            f"Remove those by which no figures are needed."
        )


def _wrong(name: str) -> str | None:
    """What is wrong with the name of a slice, and what to do."""
    if not name:
        return "has no name; give it one, or remove the column"
    own = name.casefold().removesuffix("s")
    if own in _OWN:
        # A misspelt split would be a slice, and what should be tested would be trained on.
        return f"'{name}' may be meant as '{own}'; write it so, or give the slice another name"
    problem = _problem_of(name)
    return f"has a name that {problem}" if problem else None


def _problem_of(text: str) -> str | None:
    """What is wrong with the name or the value of a slice, or with a group, and what to do."""
    shown = printable(text[:_SHOWN])
    if any(map(is_invisible, text)):
        return f"has a control character or another that cannot be seen: '{shown}'; remove it"
    if len(text.encode()) > _MOST_CELL_BYTES:
        return f"is longer than {_MOST_CELL_BYTES} bytes: '{shown}...'; shorten it"
    return None


def _cell(row: dict[str | None, Any], column: str) -> str | None:
    """A group or the value of a slice; None where the cell is empty."""
    text = normalised(row.get(column) or "")
    if problem := _problem_of(text):
        raise ValueError(f"column '{printable(column[:_SHOWN])}' {problem}")
    return text or None


def _listed(row: dict[str | None, Any], slices: list[str]) -> Found:
    """Turn one row into a Found, or raise ValueError saying what is wrong with it."""
    if None in row:
        raise ValueError("more fields than columns; put a field that holds a comma into double quotes")
    text, label, split = ((row.get(column) or "").strip() for column in ("path", "label", "split"))
    path = path_inside(text)
    if path is None:
        raise ValueError(f"path '{printable(text)}' must lie inside the data folder, relative to it")
    if not label:
        raise ValueError(f"{printable(text)} has no label")
    class_name = normalised(label)
    if problem := problem_of(class_name):
        raise ValueError(f"{printable(text)}: {problem}")
    if split and split.lower() not in SPLIT_NAMES:
        raise ValueError(
            f"split of {printable(text)} must be train, val or test, or empty. Received: '{printable(split)}'"
        )
    return Found(
        path,
        label=class_name,
        split=SPLIT_NAMES[split.lower()] if split else None,
        group=_cell(row, "group"),
        slices=tuple(_cell(row, name) for name in slices),
    )
