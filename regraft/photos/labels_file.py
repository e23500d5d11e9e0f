"""labels.csv: which label, and which split, a person gave to each photo."""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path, PurePosixPath
from typing import Any

from regraft.errors import InvalidData, printable, some
from regraft.files import readable_bytes
from regraft.photos.class_names import normalised, problem_of
from regraft.photos.dataset import Split
from regraft.photos.folder import open_inside

LABELS_FILE = "labels.csv"
SPLIT_NAMES: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MOST_BYTES = 512 * 2**20  # several million photos; all lines are held in memory


@dataclass(frozen=True, slots=True)
class Found:
    """A file and what the layout says of it; `reason` is set where the layout gives it no label."""

    path: str  # relative to the data folder, with forward slashes
    label: str | None = None
    split: str | None = None
    reason: str | None = None


def read_labels(root: Path) -> dict[str, Found]:
    """Return what labels.csv in a data folder says, by path; whether the files are there is not looked at.

    Raises:
        InvalidData: it cannot be read, is no such table, or has lines to fix.
    """
    shown = printable(str(root / LABELS_FILE))
    listed: dict[str, Found] = {}
    problems = []
    try:
        for line, row in _rows(root, shown):
            try:
                found = _listed(row)
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
    return listed


def _rows(root: Path, shown: str) -> Iterator[tuple[int, dict[str | None, Any]]]:
    """Yield every row below the first line, with the number of its last line."""
    with open_inside(root, LABELS_FILE) as file, TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        size = os.fstat(file.fileno()).st_size
        if size > _MOST_BYTES:
            raise InvalidData(
                f"{shown} must have at most {readable_bytes(_MOST_BYTES)}. Received: {readable_bytes(size)}. Give "
                f"it one short line per photo."
            )
        reader = csv.DictReader(text, strict=True)
        columns = [name.strip() for name in reader.fieldnames or []]
        if sorted(columns) not in (["label", "path"], ["label", "path", "split"]):
            found = printable(",".join(columns))
            raise InvalidData(f"{shown} must start with the line path,label or path,label,split. Received: '{found}'.")
        reader.fieldnames = columns
        for row in reader:
            yield reader.line_num, row


def _listed(row: dict[str | None, Any]) -> Found:
    """Turn one row into a Found, or raise ValueError saying what is wrong with it."""
    if None in row:
        raise ValueError("more fields than columns; put a field that holds a comma into double quotes")
    text, label, split = ((row.get(column) or "").strip() for column in ("path", "label", "split"))
    # Backslashes are separators to the people who write them, and would hide a `..` from the check below.
    path = PurePosixPath(text.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
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
    return Found(str(path), label=class_name, split=SPLIT_NAMES[split.lower()] if split else None)
