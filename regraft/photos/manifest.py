"""The manifest: one row per file in the data folder, with its label and everything later stages need to know.

A data folder has one of three layouts, and which one is found out by looking:
    classes   <class>/**/image
    splits    {train, val|valid|validation, test}/<class>/**/image     your split stays
    labels    labels.csv or labels.parquet with the columns path,label[,split][,group][,sha256][,etag] and any others,
              which are slices; a photo may lie elsewhere, and its path is an address then
"""

import re
import unicodedata
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from regraft.core.errors import InvalidData, MissingPhotos, printable, some
from regraft.core.files import reading
from regraft.core.sealed import read_frame, release_memory, write_table
from regraft.photos.class_names import normalised, problem_of
from regraft.photos.dataset import COLUMNS as DATASET_COLUMNS
from regraft.photos.dataset import Dataset
from regraft.photos.decoder import DecodeLimits
from regraft.photos.elsewhere import Elsewhere
from regraft.photos.folder import walk
from regraft.photos.images import Threads
from regraft.photos.known import Learning
from regraft.photos.label_rows import LABELS_FILES
from regraft.photos.labels_file import SPLIT_NAMES, Found, Labels, read_labels
from regraft.photos.photo_urls import is_url, shown_name
from regraft.photos.scan import scan
from regraft.photos.scan_elsewhere import scan_elsewhere
from regraft.photos.scan_facts import FileFacts, ScanFacts

COLUMNS = {
    "path": "str",  # relative to the data folder, with forward slashes; or the address of a photo elsewhere
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
    "group": "str",  # name that all photos share that may not be parted; missing for what is not used
    "conflict": "bool",  # the same file also stands under another label
}
# Where labels.csv has groups: the user's own name of the photo's, and the name that its near-duplicates share.
GROUP_COLUMNS = ("given_group", "near_group")
_PART = 20_000  # rows that are made at a time
_SLICE = "slice."  # before the name of a slice: a column of text each, missing where the cell is empty
_CONTROLS = ("Cc", "Zl", "Zp")  # categories of letters that end a line or that a terminal obeys
_FACTS = tuple(list(COLUMNS)[list(COLUMNS).index("digest") : list(COLUMNS).index("group")])
FIGURES = tuple(name for name in _FACTS if name not in ("digest", "format"))  # which splits do not depend on


def build_manifest(
    root: Path,
    *,
    limits: DecodeLimits,
    threads: Threads,
    cache: Path | None = None,
    learning: Learning | None = None,
    elsewhere: Elsewhere | None = None,
) -> tuple[str, pd.DataFrame]:
    """Return the layout's name and the manifest; a file that is unchanged since the last time is not read again.

    Args:
        root: the data folder.
        limits: larger images and slower files are quarantined.
        threads: that read and decode; told how many files are done, and their total.
        cache: where `scan` remembers what it found; with None every file is read.
        learning: what is known of contents, by which no photo is decoded twice; None: nothing is.
        elsewhere: that fetches photos at addresses; None: the table may name none.

    Returns:
        "classes", "splits" or "labels"; and a table with the columns of `COLUMNS`, ordered by path, and after them
        those of groups and slices that labels.csv has. What files have to do with each other is not in it yet:
        `regraft.photos.duplicates` finds it out.

    Raises:
        InvalidData: there is no such folder or nothing in it, a path leaves it, or labels.csv contradicts it.
        RegraftError: photos elsewhere cannot be reached.
    """
    learning = learning or Learning()
    layout, files, labels = find_files(root, elsewhere.schemes if elsewhere else ())
    remote = [file for file in files if is_url(file.path)]
    here = [file.path for file in files if not _is_hidden(file.path) and not is_url(file.path)]
    facts = scan(root, here, limits=limits, threads=threads, cache=cache, learning=learning)
    if elsewhere and remote:
        facts.add(scan_elsewhere(remote, elsewhere, limits=limits, threads=threads, learning=learning))
    manifest = _table(files, facts)
    if labels and labels.has_groups:
        manifest["given_group"] = pd.array([file.group for file in files], dtype="str")
        manifest["near_group"] = manifest.group
    for place, name in enumerate(labels.slices if labels else []):
        manifest[_SLICE + name] = pd.array([file.slices[place] if file.slices else None for file in files], dtype="str")
    return layout, manifest


def slices_of(manifest: pd.DataFrame) -> list[str]:
    """Return the names of the slices that labels.csv has; the column of each is called `slice.<name>`."""
    return [name.removeprefix(_SLICE) for name in manifest.columns if name.startswith(_SLICE)]


def photos_of(manifest: pd.DataFrame, folder: Path, elsewhere: Elsewhere | None = None) -> Dataset:
    """Return all files of a manifest as a data set of which nobody knows the classes: for those who show them."""
    rows = manifest.assign(class_name="", class_index=0, split="test")[list(DATASET_COLUMNS)]
    return Dataset(rows.fillna({"format": ""}).astype(DATASET_COLUMNS), [], folder, elsewhere)


def write_manifest(path: Path, layout: str, manifest: pd.DataFrame) -> None:
    """Write the manifest as Parquet; the layout's name travels in the table's `attrs`."""
    manifest.attrs = {"layout": layout}
    write_table(path, manifest)


def read_manifest(path: Path, *, leave_out: Collection[str] = ()) -> tuple[str, pd.DataFrame]:
    """Return what `write_manifest` wrote, without some columns.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is damaged.
    """
    texts = "|".join([*GROUP_COLUMNS, re.escape(_SLICE) + ".+"])
    manifest = read_frame(path, COLUMNS, texts=texts, leave_out=leave_out)
    with reading(path, "the name of a layout"):
        return str(manifest.attrs["layout"]), manifest


def find_files(root: Path, schemes: tuple[str, ...] = ()) -> tuple[str, list[Found], Labels | None]:
    """Return the layout's name, every photo, ordered by path, and what the table says, if there is one.

    Args:
        root: the data folder.
        schemes: that addresses of photos may have.
    """
    paths = sorted(walk(root), key=lambda path: path.split("/"))
    if not paths:
        raise MissingPhotos(
            f"the data folder {printable(str(root))} is empty. Put one folder of photos per class into it."
        )
    for name in LABELS_FILES:
        if (root / name).is_dir():
            raise InvalidData(f"{printable(str(root / name))} must be a file, and is a folder. Rename or remove it.")
    tables = [name for name in LABELS_FILES if name in paths]
    if len(tables) > 1:
        raise InvalidData(
            f"there are two tables in {printable(str(root))}, {' and '.join(tables)}: expected one, since they may say "
            f"different things. Remove one."
        )
    if tables:
        labels = read_labels(root, tables[0], schemes)
        return "labels", _from_labels(root / tables[0], paths, labels.listed), labels
    if _has_split_folders(paths):
        return "splits", [_from_split_folders(path) for path in paths], None
    return "classes", [_from_class_folders(path) for path in paths], None


def _has_split_folders(paths: list[str]) -> bool:
    """Whether every folder at the top is named as a split, train is among them, and they hold folders of their own."""
    nested = [parts for path in paths if len(parts := path.split("/")) > 1]
    tops = {parts[0].lower() for parts in nested}
    return "train" in tops and tops <= SPLIT_NAMES.keys() and any(len(parts) > 2 for parts in nested)


def _from_class_folders(path: str) -> Found:
    class_name, inside, _ = path.partition("/")
    if not inside:
        return Found(path, reason="not inside a class folder")
    return _labelled(path, class_name)


def _from_split_folders(path: str) -> Found:
    parts = path.split("/")
    if len(parts) < 3:
        return Found(path, reason="not inside a class folder of a split")
    return _labelled(path, parts[1], SPLIT_NAMES[parts[0].lower()])


def _labelled(path: str, folder_name: str, split: str | None = None) -> Found:
    class_name = normalised(folder_name)
    problem = problem_of(class_name)
    return Found(path, reason=problem) if problem else Found(path, label=class_name, split=split)


def _from_labels(table: Path, paths: list[str], listed: dict[str, Found]) -> list[Found]:
    present, remote = set(paths), sorted(path for path in listed if is_url(path))
    missing = [path for path in listed if path not in present and not is_url(path)]
    if missing:
        shown = list(map(shown_name, missing))
        raise MissingPhotos(
            f"{printable(str(table))} names {len(missing)} file(s) that are not there: {some(shown)}. "
            f"Add the files, or remove their lines. Paths are relative to {printable(str(table.parent))}."
        )
    return [listed.get(path) or Found(path, reason=f"not listed in {table.name}") for path in [*paths, *remote]]


def _table(files: list[Found], facts: ScanFacts) -> pd.DataFrame:
    """Return a row per file, and forget what is known of it, which takes more memory than the row."""
    parts = [_rows(files[start : start + _PART], facts) for start in range(0, len(files), _PART)]
    release_memory()
    return pd.concat(parts, ignore_index=True)


def _rows(files: list[Found], facts: ScanFacts) -> pd.DataFrame:
    known = facts.take([file.path for file in files])
    # As tuples: dictionaries of so many rows take a hundred megabytes.
    rows = [tuple(map(_row(file, known.get(file.path)).get, COLUMNS)) for file in files]
    columns = zip(COLUMNS.items(), zip(*rows, strict=True), strict=True)
    return pd.DataFrame({name: pd.Series(values, dtype=kind) for (name, kind), values in columns})


def _row(found: Found, facts: FileFacts | None) -> dict[str, object]:
    path, is_odd = _without_controls(found.path)
    row: dict[str, object] = {"path": path, "label": found.label, "split": found.split}
    row |= {"digest": "", "bytes": 0, "conflict": False}
    if facts is None:
        return row | {"verdict": "ignore", "reason": "hidden file"}
    row |= {name: getattr(facts, name) for name in _FACTS}
    if not facts.meant_as_image:
        return row | {"verdict": "ignore", "reason": "not an image"}
    odd = "the name has a control character; rename the file or its folder" if is_odd else None
    if found.sha256 not in (None, facts.digest) and not facts.problem:
        odd = f"its bytes have changed: the table says SHA-256 {found.sha256}, and it has {facts.digest}"
    if reason := facts.problem or found.reason or odd:
        return row | {"verdict": "quarantine", "reason": reason}
    return row | {"verdict": "use", "reason": None, "group": facts.digest}


def _is_hidden(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".")  # .DS_Store, and macOS' ._photo.jpg beside photos


def _without_controls(path: str) -> tuple[str, bool]:
    """Return a path that may stand in any report, and whether that is another one: lines of a table stay lines."""
    if path.isprintable():  # so nearly all are
        return path, False
    shown = "".join(ascii(letter)[1:-1] if unicodedata.category(letter) in _CONTROLS else letter for letter in path)
    return shown, shown != path
