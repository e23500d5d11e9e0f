"""From a source to the table: photos are found or copied, each is listed once, and what is left out is counted.

What a source names is not trusted: only files within the photos' folder are opened, and only what begins as an image is
copied. A copy is named after its content, so no name in a source can overwrite a file. Copies wait in a hidden folder
of a random name until the table stands, since a folder of copies without a table would be taken for a class.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

import pandas as pd

from regraft.converters.exports import (
    COCO_KEYS,
    PARQUET,
    TAR,
    load_json,
    read_coco,
    read_hugging_face,
    read_label_studio,
    read_webdataset,
)
from regraft.converters.listing import (
    MOST_BYTES,
    NO_PHOTO,
    SCHEMES,
    SEVERAL_LABELS,
    LeftOut,
    Record,
    Row,
    Wanted,
    list_bucket,
    read_folder,
)
from regraft.core.errors import InvalidData, is_invisible, printable
from regraft.core.files import check_room, folder_within, replacing
from regraft.photos.class_names import normalised, problem_of
from regraft.photos.folder import open_inside, walk_around
from regraft.photos.label_rows import LABELS_FILES, OWN, problem_of_cell
from regraft.photos.labels_file import path_inside
from regraft.photos.photo_urls import carries_secret, is_url, problem_of_url

_SPLITS = ("test", "val", "train", None)  # the best protected one first
_SHOWN = 20  # classes whose photos are counted in words
# What CVAT and FiftyOne write in their own formats; beside it the photos lie in folders that are no classes.
_OWN_FORMATS = ("annotations.xml", "samples.json", "labels.json")
_COPIES = "photos"  # the folder beside the table
_STAYS_FREE = 256 * 2**20  # bytes of the disk that copies leave to others
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
Read = Callable[[Path, Wanted, LeftOut], Iterator[Record]]
FORMATS: dict[str, tuple[str, Read]] = {
    "folder": ("a folder of photos, <class>/... or {train,val,test}/<class>/...", read_folder),
    "huggingface": ("Parquet files of Hugging Face with images in them", read_hugging_face),
    "webdataset": ("tar files of WebDataset", read_webdataset),
    "labelstudio": ("a JSON export of Label Studio", read_label_studio),
    "coco": ("COCO: images, annotations and categories", read_coco),
}


def find_format(source: Path) -> str:
    """Return the format of a file or a folder, a key of `FORMATS`, by its name and by what lies in it.

    Raises:
        InvalidData: there is no such file or folder, or it is of no known format.
    """
    shown, name = printable(str(source)), source.name.lower()
    if source.is_dir():
        names = [each.lower() for each in walk_around(source)[0]]
        if any(each.startswith("annotations/") and each.endswith(".json") for each in names):
            return "coco"
        if any(each.endswith(TAR) for each in names):
            return "webdataset"
        if any(each.endswith(PARQUET) for each in names if each not in LABELS_FILES):
            return "huggingface"
        if not any(each in _OWN_FORMATS for each in names):
            return "folder"
    elif not source.is_file():
        raise InvalidData(f"there is no {shown}. Name a folder, an export or an address such as s3://bucket/photos.")
    elif name.endswith((".zip", ".gz", ".tgz")):
        raise InvalidData(f"{shown} is packed. Unpack it, and name what was in it.")
    elif name.endswith((PARQUET, TAR)):
        return "huggingface" if name.endswith(PARQUET) else "webdataset"
    elif name.endswith(".json"):
        contents = load_json(source.parent, source.name)
        if isinstance(contents, list):
            return "labelstudio"
        if isinstance(contents, dict) and contents.keys() >= set(COCO_KEYS):
            return "coco"
    known = "; ".join(f"{name}: {title}" for name, (title, _) in FORMATS.items())
    raise InvalidData(
        f"{shown} is of no known format. Known are {known}. Say which it is with --format; of CVAT or FiftyOne, "
        f"export folders of classes (ImageNet 1.0, ImageClassificationDirectoryTree) or COCO."
    )


@dataclass(slots=True)
class Converted:
    """What a table has."""

    format: str  # in words
    rows: list[Row]
    left_out: LeftOut
    copied: int  # photos that were written beside the table

    def lines(self) -> list[str]:
        """Return the message for the user."""
        labels, splits = (Counter(getattr(row, name) for row in self.rows) for name in ("label", "split"))
        classes = ", ".join(f"{printable(name)} {count:,}" for name, count in sorted(labels.items())[:_SHOWN])
        more = f" and {len(labels) - _SHOWN:,} more" if len(labels) > _SHOWN else ""
        lines = [f"{len(self.rows):,} photos of {len(labels):,} classes, from {self.format}: {classes}{more}"]
        if splits.keys() - {None}:
            given = (f"{name or 'none given'} {splits[name]:,}" for name in _SPLITS[::-1] if name in splits)
            lines.append(f"splits: {', '.join(given)}")
        if self.copied:
            lines.append(f"{self.copied:,} photos were written beside the table")
        if self.left_out.count:
            lines += [f"{self.left_out.count:,} are left out:", *(f"- {line}" for line in self.left_out.lines())]
        return lines


def convert(
    source: str, out: Path, wanted: Wanted, *, name: str | None = None, photos: str | None = None, replace: bool = False
) -> Converted:
    """Write the table of the photos of a source.

    Args:
        source: a folder, a file, or the address of a bucket or of a folder in it.
        out: the table, labels.csv or labels.parquet; photos that lie elsewhere on this machine, or inside the source,
            are written to the folder `photos` beside it.
        wanted: which fields of the source say label, group and slices.
        name: of the format, a key of `FORMATS`; None to find it out.
        photos: the folder or address that names in the source are relative to; None for the source's own folder.
        replace: whether a table that is there may be replaced.

    Raises:
        InvalidData: the source is of no known format or damaged, or nothing in it can be listed.
        RegraftError: an address cannot be listed, or the table not written.
    """
    if is_url(source) and wanted != Wanted():
        raise InvalidData("a listing has no fields: leave --field out.")
    path, left_out = Path(source).resolve(), LeftOut()
    base = photos if photos and is_url(photos) else Path(photos or (path if path.is_dir() else path.parent))
    with Output(out, source if is_url(source) else base, may_replace=replace) as output:
        if is_url(source):
            title, rows = "a listing", list(list_bucket(source, left_out))
        else:
            title, read = FORMATS[name or find_format(path)]
            rows = _listed(read(path, wanted, left_out), output, wanted, left_out)
        if not rows:
            first = f"{printable(source)} has no photo that can be listed with a label; no table was written."
            raise InvalidData("\n".join([first, *(f"- left out: {line}" for line in left_out.lines())]))
        # Without groups that were asked for, photos would be parted silently.
        missing = [] if not wanted.group or any(row.group for row in rows) else [wanted.group]
        missing += [each for place, each in enumerate(wanted.slices) if not any(row.slices[place] for row in rows)]
        if missing:
            raise InvalidData(
                f"{printable(source)} has no field {', '.join(map(printable, missing))} that says something of any "
                f"photo. Name another one with --field, or leave it out."
            )
        columns = [each for each in OWN[2:] if any(getattr(row, each) for row in rows)]
        output.write(rows, columns, [normalised(each) for each in wanted.slices])
        return Converted(title, rows, left_out, len(output.copied))


def _listed(records: Iterable[Record], output: "Output", wanted: Wanted, left_out: LeftOut) -> list[Row]:
    """Return one row for each path, ordered by path; a photo under two labels is left out altogether."""
    listed: dict[str, Row] = {}
    labels: dict[str, set[str]] = {}
    for record in records:
        class_name, fields = normalised(record.label), record.fields
        problems = (problem_of_cell(fields.get(name, "")) for name in wanted.fields)
        if problem := problem_of(class_name):
            left_out.add("whose class has a name that cannot be used", f"{record.where}: {problem}")
        elif problem := next(filter(None, problems), None):
            left_out.add("whose group or slice cannot be used", f"{record.where}: it {problem}")
        elif placed := output.place(record, left_out):
            group, slices = fields.get(wanted.group or ""), tuple(fields.get(name) for name in wanted.slices)
            row = Row(placed[0], class_name, record.split, group, placed[1], slices=slices)
            before = listed.setdefault(row.path, row)
            labels.setdefault(row.path, set()).add(row.label)
            if before is not row:
                left_out.add("the same as another one in the source, which is listed", row.path)
                listed[row.path] = min(before, row, key=lambda each: _SPLITS.index(each.split))
    for path, names in labels.items():
        if len(names) > 1:
            del listed[path]
            left_out.add(SEVERAL_LABELS, f"{path} ({', '.join(sorted(names))})")
            output.copied.discard(PurePosixPath(path).name)
    return [listed[path] for path in sorted(listed)]


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
        self.copied: set[str] = set()  # names of the files that are to lie beside the table

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting:
            shutil.rmtree(self._waiting, ignore_errors=True)

    def place(self, record: Record, left_out: LeftOut) -> tuple[str, str | None] | None:
        """Return path and SHA-256 of a photo, the second None for one at an address; None for one that is left out."""
        name, where = record.name, f"{record.where} ({record.name})"
        if record.content is not None:
            return self._copied(record.content, record.where, left_out)
        if not name:
            left_out.add(NO_PHOTO, record.where)
            return None
        if isinstance(self._photos, str) and not is_url(name) and path_inside(name) == name:
            name = f"{self._photos.rstrip('/')}/{name}"
        if is_url(name):
            if not problem_of_url(name, SCHEMES):
                return name, None
            left_out.add(_BAD_URL, where)
        elif carries_secret(name):
            left_out.add(_BAD_URL, where)
        elif path_inside(name) != name or any(map(is_invisible, name)) or isinstance(self._photos, str):
            left_out.add(_BAD_NAME, where)
        else:
            return self._found(self._photos, record, left_out)
        return None

    def write(self, rows: Iterable[Row], columns: Sequence[str], slices: Sequence[str]) -> None:
        """Write the table, then move the copies to their place.

        Args:
            rows: in their order.
            columns: those of split, group, sha256 and etag that the table has.
            slices: the names of the further columns, in the order in which rows have them.
        """
        cells = [[row.path, row.label, *(getattr(row, name) for name in columns), *row.slices] for row in rows]
        table = pd.DataFrame(cells, columns=["path", "label", *columns, *slices], dtype=object)
        with replacing(self._table) as temporary:
            if self._table.suffix.lower() == ".csv":
                table.to_csv(temporary, index=False, lineterminator="\n")
            else:
                table.to_parquet(temporary, index=False, compression="zstd")
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
        """Write a photo to the copies that wait for the table."""
        suffix, digest = _suffix(content), hashlib.sha256(content).hexdigest()
        if not suffix:
            left_out.add(_NO_IMAGE, where)
            return None
        name = f"{digest}{suffix}"
        if name not in self.copied:
            check_room(self._folder, len(content) + _STAYS_FREE, "a photo of the source and what must stay free")
            if self._waiting is None:
                if os.path.lexists(self._folder / _COPIES):
                    folder_within(self._folder, _COPIES)  # a link is refused before anything is written
                self._folder.mkdir(parents=True, exist_ok=True)
                self._waiting = Path(tempfile.mkdtemp(prefix=".photos-of-a-conversion-", dir=self._folder))
            # Not forced to the disk one by one: the table has its SHA-256.
            (self._waiting / name).write_bytes(content)
            self.copied.add(name)
        return f"{_COPIES}/{name}", digest


def _suffix(content: bytes) -> str | None:
    return next((suffix for suffix, start in _SUFFIXES.items() if re.match(start, content, re.DOTALL)), None)
