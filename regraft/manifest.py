"""The manifest: one row per file in the data folder, with its label and everything later stages need to know.

A data folder has one of three layouts, and which one is found out by looking:
    classes   <class>/**/image
    splits    {train, val|valid|validation, test}/<class>/**/image     the given split is kept
    labels    labels.csv with the columns path,label[,split]
"""

import csv
import os
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from regraft.errors import InvalidData
from regraft.files import replacing, sha256_of
from regraft.images import in_threads, inspect, looks_like_an_image
from regraft.splits import SPLIT_NAMES

LABELS_FILE = "labels.csv"
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
    "orientation": "Int64",
    "frames": "Int64",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A file and what the layout says of it; `reason` is set where the layout gives it no label."""

    path: PurePosixPath
    label: str | None = None
    split: str | None = None
    reason: str | None = None


def build_manifest(
    root: Path, *, max_pixels: int, workers: int, on_progress: Callable[[int, int], None]
) -> tuple[str, pd.DataFrame]:
    """Read every file under `root` once and return the layout's name and the manifest.

    Args:
        root: the data folder.
        max_pixels: larger images are quarantined without decoding them.
        workers: threads; 0 means one per core.
        on_progress: called with the number of files done and their total.

    Returns:
        "classes", "splits" or "labels"; and a table with the columns of `COLUMNS`, ordered by path.

    Raises:
        InvalidData: there is no such folder or nothing in it, a path leaves it, or labels.csv contradicts it.
    """
    layout, files = find_files(root)
    rows = []
    for row in in_threads(lambda file: _row(root, file, max_pixels), files, workers=workers):
        rows.append(row)
        on_progress(len(rows), len(files))
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
    check_folder(root)
    paths = sorted(_walk(root))
    if not paths:
        raise InvalidData(f"the data folder {root} is empty. Put one folder of photos per class into it.")
    if PurePosixPath(LABELS_FILE) in paths:
        return "labels", _from_labels_file(root, paths)
    if _has_split_folders(paths):
        return "splits", [_from_split_folders(path) for path in paths]
    return "classes", [_from_class_folders(path) for path in paths]


def check_folder(root: Path) -> None:
    """Raise InvalidData if there is no data folder."""
    if not root.is_dir():
        raise InvalidData(
            f"there is no data folder {root}. Expected labelled photos in it: <class>/*.jpg, "
            f"{{train,val,test}}/<class>/*.jpg, or {LABELS_FILE}. Put yours there, or run `make demo` for sample data."
        )


def _walk(root: Path) -> Iterator[PurePosixPath]:
    """Every file below `root`, except in hidden folders; nothing outside `root` is ever opened."""
    outside = []
    resolved_root = root.resolve()
    for folder, subfolders, names in os.walk(root):
        # .git, .ipynb_checkpoints and macOS archives hold copies of images that nobody meant as data.
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        for name in [*subfolders, *names]:
            path = Path(folder, name)
            if path.is_symlink() and (path.is_dir() or not _resolved(path).is_relative_to(resolved_root)):
                outside.append(f"{path} -> {path.readlink()}")
        yield from (PurePosixPath(Path(folder, name).relative_to(root).as_posix()) for name in names)
    if outside:
        raise InvalidData(
            f"links in the data folder must not leave it or stand for a folder. Found {len(outside)}: "
            f"{_some(outside)}. Replace each by a copy of what it points to."
        )


def _resolved(link: Path) -> Path:
    try:
        return link.resolve()
    except (RuntimeError, OSError):  # a link to itself leads nowhere; it is quarantined with other unreadable files
        return link.absolute().parent.resolve() / link.name


def _has_split_folders(paths: list[PurePosixPath]) -> bool:
    """Whether every folder at the top is named as a split, train is among them, and they hold folders of their own."""
    nested = [path.parts for path in paths if len(path.parts) > 1]
    tops = {parts[0].lower() for parts in nested}
    return "train" in tops and tops <= SPLIT_NAMES.keys() and any(len(parts) > 2 for parts in nested)


def _from_class_folders(path: PurePosixPath) -> Found:
    if len(path.parts) < 2:
        return Found(path, reason="not inside a class folder")
    return Found(path, label=_normalised(path.parts[0]))


def _from_split_folders(path: PurePosixPath) -> Found:
    if len(path.parts) < 3:
        return Found(path, reason="not inside a class folder of a split")
    return Found(path, label=_normalised(path.parts[1]), split=SPLIT_NAMES[path.parts[0].lower()])


def _from_labels_file(root: Path, paths: list[PurePosixPath]) -> list[Found]:
    listed = _read_labels(root / LABELS_FILE)
    present = set(paths)
    missing = [str(path) for path in listed if path not in present]
    if missing:
        raise InvalidData(
            f"{root / LABELS_FILE} names {len(missing)} file(s) that are not in {root}: {_some(missing)}. Add the "
            f"files, or remove their lines. Paths are relative to {root}."
        )
    rest = (Found(path, reason=f"not listed in {LABELS_FILE}") for path in paths if path not in listed)
    return sorted([*listed.values(), *rest], key=lambda found: found.path)


def _read_labels(path: Path) -> dict[PurePosixPath, Found]:
    listed: dict[PurePosixPath, Found] = {}
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
        raise InvalidData(f"{path} has {len(problems)} line(s) to mend: {_some(problems)}.")
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
    return Found(path, label=_normalised(label), split=SPLIT_NAMES[split.lower()] if split else None)


def _row(root: Path, found: Found, max_pixels: int) -> dict[str, object]:
    path = root / found.path
    # A name that is not UTF-8 cannot be written into any report; it is shown with the bytes escaped.
    shown = _escaped(str(found.path))
    row: dict[str, object] = {"path": shown, "label": found.label and _escaped(found.label), "split": found.split}
    row |= {"digest": "", "bytes": 0}
    if path.name.startswith("."):
        return row | {"verdict": "ignore", "reason": "hidden file"}  # .DS_Store, and macOS' ._photo.jpg beside photos
    if shown != str(found.path):
        return row | {"verdict": "quarantine", "reason": "the name is not UTF-8; rename the file or its folder"}
    if not path.is_file():
        return row | {"verdict": "quarantine", "reason": "neither a file nor a folder"}
    try:
        row |= {"digest": sha256_of(path), "bytes": path.stat().st_size}
        facts = inspect(path, max_pixels=max_pixels)
        row |= {name: getattr(facts, name) for name in ("format", "width", "height", "mode", "orientation", "frames")}
        if facts.problem and not facts.format and not looks_like_an_image(path):
            return row | {"verdict": "ignore", "reason": "not an image"}
    except OSError as error:
        return row | {"verdict": "quarantine", "reason": f"cannot be read: {error.strerror}"}
    if facts.problem or found.reason:
        return row | {"verdict": "quarantine", "reason": facts.problem or found.reason}
    return row | {"verdict": "use", "reason": None}


def _escaped(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _normalised(class_name: str) -> str:
    # macOS writes an accented letter as two code points, others as one: the same class must not become two.
    return unicodedata.normalize("NFC", class_name).strip()


def _some(items: list[str], count: int = 5) -> str:
    """The first few of many, as text."""
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return "; ".join(items[:count]) + more
