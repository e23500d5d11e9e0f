"""The manifest: one row per file in the data folder, with its label and everything later stages need to know.

A data folder has one of three layouts, and which one is found out by looking:
    classes   <class>/**/image
    splits    {train, val|valid|validation, test}/<class>/**/image     your split stays
    labels    labels.csv with the columns path,label[,split]
"""

import csv
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from regraft.errors import InvalidData, some
from regraft.files import replacing
from regraft.photos.dataset import Split
from regraft.photos.decoder import DecodeLimits
from regraft.photos.folder import walk
from regraft.photos.images import Threads
from regraft.photos.scan import FileFacts, scan

LABELS_FILE = "labels.csv"
SPLIT_NAMES: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
COLUMNS = {
    "path": "str",  # relative to the data folder, with forward slashes
    "label": "str",
    "split": "str",  # as the user gave it: train, val or test; missing where the layout gives none
    "verdict": "str",  # use, quarantine (meant to be an image, cannot be used) or ignore (not an image)
    "reason": "str",  # why it is not used
    "digest": "str",  # SHA-256 of the file's bytes
    "bytes": "int64",
    "format": "str",
    "width": "Int64",
    "height": "Int64",
    "mode": "str",
    "bit_depth": "Int64",  # of one channel
    "orientation": "Int64",  # as in the Exif tag, 1 to 8
    "frames": "Int64",
    "brightness": "float64",  # mean of the luma (ITU-R 601-2), 0 (black) to 1 (white)
    "contrast": "float64",  # its standard deviation, 0 to 0.5
    "sharpness": "float64",  # variance of its Laplacian, luma 0 to 255, at most 256 pixels a side; low means blurred
    "entropy": "float64",  # of its histogram in bits, 0 (one grey) to 8
    "phash": "str",  # perceptual hash: 256 bits as 64 hexadecimal digits; missing where there is one colour only
    "group": "str",  # digest that all copies and near-duplicates of one photo share; missing for what is not used
    "conflict": "bool",  # the same file also stands under another label
}
_FACTS = tuple(list(COLUMNS)[list(COLUMNS).index("digest") : list(COLUMNS).index("group")])


@dataclass(frozen=True, slots=True)
class Found:
    """A file and what the layout says of it; `reason` is set where the layout gives it no label."""

    path: str  # relative to the data folder, with forward slashes
    label: str | None = None
    split: str | None = None
    reason: str | None = None


def build_manifest(
    root: Path,
    *,
    limits: DecodeLimits,
    threads: Threads,
    cache: Path | None = None,
) -> tuple[str, pd.DataFrame]:
    """Return the layout's name and the manifest; a file that is unchanged since the last time is not read again.

    Args:
        root: the data folder.
        limits: larger images and slower files are quarantined.
        threads: that read and decode; told how many files are done, and their total.
        cache: where `scan` remembers what it found; with None every file is read.

    Returns:
        "classes", "splits" or "labels"; and a table with the columns of `COLUMNS`, ordered by path. What files have to
        do with each other is not in it yet: `regraft.photos.duplicates` finds it out.

    Raises:
        InvalidData: there is no such folder or nothing in it, a path leaves it, or labels.csv contradicts it.
    """
    layout, files = find_files(root)
    facts = scan(
        root,
        [file.path for file in files if _is_looked_into(file.path)],
        limits=limits,
        threads=threads,
        cache=cache,
    )
    rows = [_row(file, facts.get(file.path)) for file in files]
    return layout, pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def write_manifest(path: Path, layout: str, manifest: pd.DataFrame) -> None:
    """Write the manifest as Parquet; the layout's name travels in the table's `attrs`."""
    manifest.attrs = {"layout": layout}
    with replacing(path) as temporary:
        manifest.to_parquet(temporary, index=False)


def read_manifest(path: Path) -> tuple[str, pd.DataFrame]:
    """Return what `write_manifest` wrote."""
    manifest = pd.read_parquet(path)
    return manifest.attrs["layout"], manifest


def find_files(root: Path) -> tuple[str, list[Found]]:
    """Return the layout's name and every file below `root`, ordered by path, with label and split where it has them."""
    paths = sorted(walk(root), key=lambda path: path.split("/"))
    if not paths:
        raise InvalidData(f"the data folder {root} is empty. Put one folder of photos per class into it.")
    if LABELS_FILE in paths:
        return "labels", _from_labels_file(root, paths)
    if _has_split_folders(paths):
        return "splits", [_from_split_folders(path) for path in paths]
    return "classes", [_from_class_folders(path) for path in paths]


def _has_split_folders(paths: list[str]) -> bool:
    """Whether every folder at the top is named as a split, train is among them, and they hold folders of their own."""
    nested = [parts for path in paths if len(parts := path.split("/")) > 1]
    tops = {parts[0].lower() for parts in nested}
    return "train" in tops and tops <= SPLIT_NAMES.keys() and any(len(parts) > 2 for parts in nested)


def _from_class_folders(path: str) -> Found:
    class_name, inside, _ = path.partition("/")
    if not inside:
        return Found(path, reason="not inside a class folder")
    return Found(path, label=_normalised(class_name))


def _from_split_folders(path: str) -> Found:
    parts = path.split("/")
    if len(parts) < 3:
        return Found(path, reason="not inside a class folder of a split")
    return Found(path, label=_normalised(parts[1]), split=SPLIT_NAMES[parts[0].lower()])


def _from_labels_file(root: Path, paths: list[str]) -> list[Found]:
    listed = _read_labels(root / LABELS_FILE)
    present = set(paths)
    missing = [path for path in listed if path not in present]
    if missing:
        raise InvalidData(
            f"{root / LABELS_FILE} names {len(missing)} file(s) that are not in {root}: {some(missing)}. Add the "
            f"files, or remove their lines. Paths are relative to {root}."
        )
    return [listed.get(path) or Found(path, reason=f"not listed in {LABELS_FILE}") for path in paths]


def _read_labels(path: Path) -> dict[str, Found]:
    listed: dict[str, Found] = {}
    problems = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [name.strip() for name in reader.fieldnames or []]
            if sorted(columns) not in (["label", "path"], ["label", "path", "split"]):
                found = ",".join(columns)
                raise InvalidData(
                    f"{path} must start with the line path,label or path,label,split. Received: {found!r}."
                )
            reader.fieldnames = columns
            for row in reader:
                try:
                    found = _listed(row)
                    if found.path in listed:
                        raise ValueError(f"{found.path} is listed twice")
                    listed[found.path] = found
                except ValueError as error:
                    problems.append(f"line {reader.line_num}: {error}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidData(f"{path} is not a CSV file in UTF-8: {error}. Save it as such.") from None
    if problems:
        raise InvalidData(f"{path} has {len(problems)} line(s) to fix: {some(problems)}.")
    return listed


def _listed(row: dict[str | None, Any]) -> Found:
    """Turn one line of labels.csv into a Found, or raise ValueError saying what is wrong with it."""
    if None in row:
        raise ValueError("more fields than columns; put a field that holds a comma into double quotes")
    text, label, split = ((row.get(column) or "").strip() for column in ("path", "label", "split"))
    # Backslashes are separators to the people who write them, and would hide a `..` from the check below.
    path = PurePosixPath(text.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise ValueError(f"path {text!r} must lie inside the data folder, relative to it")
    if not label:
        raise ValueError(f"{text} has no label")
    if split and split.lower() not in SPLIT_NAMES:
        raise ValueError(f"split of {text} must be train, val or test, or empty. Received: {split!r}")
    return Found(str(path), label=_normalised(label), split=SPLIT_NAMES[split.lower()] if split else None)


def _is_looked_into(path: str) -> bool:
    # .DS_Store, and macOS' ._photo.jpg beside photos; a name that is not UTF-8 cannot be written into any report.
    return not _is_hidden(path) and _escaped(path) == path


def _row(found: Found, facts: FileFacts | None) -> dict[str, object]:
    row: dict[str, object] = {"path": _escaped(found.path), "label": found.label and _escaped(found.label)}
    row |= {"split": found.split, "digest": "", "bytes": 0, "conflict": False}
    if facts is None and _is_hidden(found.path):
        return row | {"verdict": "ignore", "reason": "hidden file"}
    if facts is None:
        return row | {"verdict": "quarantine", "reason": "the name is not UTF-8; rename the file or its folder"}
    row |= {name: getattr(facts, name) for name in _FACTS}
    if not facts.meant_as_image:
        return row | {"verdict": "ignore", "reason": "not an image"}
    if facts.problem or found.reason:
        return row | {"verdict": "quarantine", "reason": facts.problem or found.reason}
    return row | {"verdict": "use", "reason": None, "group": facts.digest}


def _is_hidden(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".")


def _escaped(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _normalised(class_name: str) -> str:
    # macOS writes an accented letter as two code points, others as one: the same class must not become two.
    return unicodedata.normalize("NFC", class_name).strip()
