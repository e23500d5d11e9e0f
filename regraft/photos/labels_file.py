"""labels.csv or labels.parquet: what a person says of each photo: its label, and if they like its split, group, slices.

A group is a patient, a session, an object: photos that must not be parted. A photo lies in the data folder or at an
address; its SHA-256 or its ETag says which bytes are meant. Any other column is a slice, by which figures are reported:
a camera, a site, a season.
"""

import csv
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import pyarrow as pa

from regraft.core.errors import InvalidData, printable, some
from regraft.photos.class_names import normalised, problem_of
from regraft.photos.dataset import Split
from regraft.photos.fetching import plain_etag
from regraft.photos.label_rows import OWN, Row, problem_of_cell, rows_of, short_name
from regraft.photos.photo_urls import MOST_LETTERS, NOT_SHOWN, carries_secret, is_url, problem_of_url, shown_name

SPLIT_NAMES: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MARK = "'"  # around what is quoted
_MOST_PROBLEMS = 1_000  # after these the rest is not read
_ELSEWHERE = ("//", "\\\\")  # how paths begin that lead to another machine
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Found:
    """A file and what the layout says of it; `reason` is set where the layout gives it no label."""

    path: str  # relative to the data folder, with forward slashes, or an address
    label: str | None = None
    split: str | None = None
    reason: str | None = None
    group: str | None = None
    slices: tuple[str | None, ...] = ()  # one value for each of `Labels.slices`, None where the cell is empty
    sha256: str | None = None  # that its bytes must have
    etag: str | None = None  # of the photo at an address, without quotes


@dataclass(frozen=True, slots=True)
class Labels:
    """What labels.csv or labels.parquet says."""

    listed: dict[str, Found]  # by path
    slices: list[str]  # names of the columns, in their order
    has_groups: bool  # whether there is a column of groups


def read_labels(root: Path, name: str = "labels.csv", schemes: tuple[str, ...] = ()) -> Labels:
    """Return what the table of a data folder says; whether the photos are there is not looked at.

    Args:
        root: the data folder.
        name: of the table, one of `LABELS_FILES`.
        schemes: that addresses of photos may have.

    Raises:
        InvalidData: it cannot be read, is no such table, or has lines to fix.
    """
    shown = printable(str(root / name))
    kind = "Parquet file" if name.endswith(".parquet") else "CSV file in UTF-8"
    listed: dict[str, Found] = {}
    problems: list[str] = []
    try:
        rows = rows_of(root, name)
        _, columns = next(rows)
        slices = [column for column in columns.values() if column not in OWN]
        for place, row in rows:
            try:
                found = _listed(row, slices, schemes)
                if found.path in listed:
                    raise ValueError(f"{_shown(found.path)} is listed twice")
                listed[found.path] = found
            except ValueError as error:
                problems.append(f"{place}: {error}")
                if len(problems) == _MOST_PROBLEMS:
                    break
    except (csv.Error, pa.ArrowException, UnicodeDecodeError) as error:
        reason = printable(" ".join(str(error).split()))
        raise InvalidData(f"{shown} is not a {kind}: {reason}. Save it as such.") from None
    except OSError as error:
        raise InvalidData(f"{shown} cannot be read: {error.strerror or 'it is damaged'}. Make it readable.") from None
    if problems:
        least = "at least " if len(problems) == _MOST_PROBLEMS else ""
        raise InvalidData(f"{shown} has {least}{len(problems)} line(s) to fix: {some(problems)}.")
    return Labels(listed, slices, "group" in columns.values())


def path_inside(text: str) -> str | None:
    """Return a path that a table names, with forward slashes; None if it may leave the folder that it belongs to."""
    # Backslashes are separators to the people who write them, and would hide a `..` from the check below.
    path = PurePosixPath(text.replace("\\", "/"))
    is_inside = path.parts and not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]
    return str(path) if is_inside else None


def _place_of(text: str, schemes: tuple[str, ...]) -> str:
    """Return the path or the address of a photo; ValueError if it is neither, or may not be used."""
    if is_url(text):
        if problem := problem_of_url(text, schemes):
            raise ValueError(f"path {problem}")
        return text
    if carries_secret(text) and not text.startswith(_ELSEWHERE):
        raise ValueError(
            f"path {NOT_SHOWN} is made like an address that lacks its scheme, or has a user, a password or a query. "
            f"Write an address as https://host/photo.jpg, without these; rename a file of the data folder that is "
            f"called so"
        )
    path = path_inside(text)
    if path is None:
        raise ValueError(
            f"path {shown_name(text, _MARK)} must lie inside the data folder, relative to it, or be an address"
        )
    return path


def _shown(path: str) -> str:
    """A path or an address that was taken, as a message may have it."""
    return path if is_url(path) else shown_name(path)


def _listed(row: Row, slices: list[str], schemes: tuple[str, ...]) -> Found:
    """Turn one row into a Found, or raise ValueError saying what is wrong with it."""
    if None in row:
        raise ValueError("more fields than columns; put a field that holds a comma into double quotes")
    for name, cell in row.items():
        if cell and len(cell) > MOST_LETTERS:
            raise ValueError(
                f"column '{short_name(name or '')}' must have at most {MOST_LETTERS:,} letters. Received: "
                f"{len(cell):,}; shorten it"
            )
    text, label, split = ((row.get(column) or "").strip() for column in ("path", "label", "split"))
    path = _place_of(text, schemes)
    if not label:
        raise ValueError(f"{_shown(path)} has no label")
    class_name, problem = _class_of(label)
    if problem:
        raise ValueError(f"{_shown(path)}: {problem}")
    if split and split.lower() not in SPLIT_NAMES:
        raise ValueError(
            f"split of {_shown(path)} must be train, val or test, or empty. Received: {shown_name(split, _MARK)}"
        )
    sha256 = (row.get("sha256") or "").strip().lower()
    if sha256 and not _SHA256.fullmatch(sha256):
        raise ValueError(f"sha256 of {_shown(path)} must be 64 hexadecimal digits, or empty")
    return Found(
        path,
        label=class_name,
        split=SPLIT_NAMES[split.lower()] if split else None,
        group=_cell(row, "group"),
        slices=tuple(_cell(row, name) for name in slices),
        sha256=sha256 or None,
        etag=plain_etag(_cell(row, "etag")) if is_url(path) else None,
    )


@lru_cache(maxsize=10_000)
def _class_of(label: str) -> tuple[str, str | None]:
    """Return the name of a class, and what is wrong with it."""
    class_name = normalised(label)
    return class_name, problem_of(class_name)


def _cell(row: Row, column: str) -> str | None:
    """A group, an ETag or the value of a slice; None where the cell is empty."""
    text = normalised(row.get(column) or "")
    if problem := problem_of_cell(text):
        raise ValueError(f"column '{short_name(column)}' {problem}")
    return text or None
