"""From a source to the table: photos are found or copied, each is listed once, and what is left out is counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from regraft.converters.annotations import COCO_KEYS, load_json, read_coco, read_label_studio
from regraft.converters.bucket import Bucket
from regraft.converters.output import Output
from regraft.converters.records import NO_CLASS, SEVERAL_LABELS, LeftOut, Record, Row, Wanted, are_splits, read_path
from regraft.converters.shards import PARQUET, TAR, read_hugging_face, read_webdataset
from regraft.core.errors import InvalidData, printable
from regraft.photos.class_names import normalised, problem_of
from regraft.photos.folder import walk_around
from regraft.photos.label_rows import LABELS_FILES, OWN, problem_of_cell
from regraft.photos.photo_urls import is_url

_SPLITS = ("test", "val", "train", None)  # the best protected one first
_SHOWN = 20  # classes whose photos are counted in words
# What CVAT and FiftyOne write in their own formats; beside it the photos lie in folders that are no classes.
_OWN_FORMATS = ("annotations.xml", "samples.json", "labels.json")


class Format(NamedTuple):
    """What one tool writes."""

    title: str
    read: Callable[[Path, Wanted, LeftOut], Iterator[Record]]


def read_folder(root: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the photos below a folder, ordered by path; hidden files and folders are no photos."""
    files, refused = walk_around(root)
    for path in sorted(refused):
        left_out.add("that must not be opened", f"{path} ({refused[path]})")
    # A table that an earlier call wrote there is no photo.
    paths = sorted(path for path in files if path not in LABELS_FILES and not path.rpartition("/")[2].startswith("."))
    nested = [parts for path in paths if len(parts := path.split("/")) > 1]
    has_splits = are_splits((parts[0] for parts in nested), are_nested=any(len(parts) > 2 for parts in nested))
    for path in paths:
        if found := read_path(path, has_splits=has_splits):
            yield Record(path, found[0], name=path, split=found[1])
        else:
            left_out.add(NO_CLASS, path)


FORMATS = {
    "folder": Format("a folder of photos, <class>/... or {train,val,test}/<class>/...", read_folder),
    "huggingface": Format("Parquet files of Hugging Face with images in them", read_hugging_face),
    "webdataset": Format("tar files of WebDataset", read_webdataset),
    "labelstudio": Format("a JSON export of Label Studio", read_label_studio),
    "coco": Format("COCO: images, annotations and categories", read_coco),
}


def find_format(source: Path) -> Format:
    """Return the format of a file or a folder, by its name and by what lies in it.

    Raises:
        InvalidData: there is no such file or folder, or it is of no known format.
    """
    shown, name = printable(str(source)), source.name.lower()
    found = ""
    if source.is_dir():
        found = _of_folder(source)
    elif not source.is_file():
        raise InvalidData(f"there is no {shown}. Name a folder, an export or an address such as s3://bucket/photos.")
    elif name.endswith((".zip", ".gz", ".tgz")):
        raise InvalidData(f"{shown} is packed. Unpack it, and name what was in it.")
    elif name.endswith((PARQUET, TAR)):
        found = "huggingface" if name.endswith(PARQUET) else "webdataset"
    elif name.endswith(".json"):
        contents = load_json(source.parent, source.name)
        if isinstance(contents, list):
            found = "labelstudio"
        elif isinstance(contents, dict) and contents.keys() >= set(COCO_KEYS):
            found = "coco"
    if not found:
        known = "; ".join(f"{name}: {each.title}" for name, each in FORMATS.items())
        raise InvalidData(
            f"{shown} is of no known format. Known are {known}. Say which it is with --format; of CVAT or FiftyOne, "
            f"export folders of classes (ImageNet 1.0, ImageClassificationDirectoryTree) or COCO."
        )
    return FORMATS[found]


def _of_folder(folder: Path) -> str:
    names = [name.lower() for name in walk_around(folder)[0]]
    if any(name.startswith("annotations/") and name.endswith(".json") for name in names):
        return "coco"
    if any(name.endswith(TAR) for name in names):
        return "webdataset"
    if any(name.endswith(PARQUET) for name in names if name not in LABELS_FILES):
        return "huggingface"
    return "" if any(name in _OWN_FORMATS for name in names) else "folder"


@dataclass(slots=True)
class Converted:
    """What a table has."""

    format: str  # in words
    left_out: LeftOut = field(default_factory=LeftOut)
    labels: Counter[str] = field(default_factory=Counter)
    splits: Counter[str | None] = field(default_factory=Counter)
    copied: int = 0  # photos that were written beside the table

    def counted(self, rows: Iterable[Row], source: str) -> Iterator[Row]:
        """Yield rows and count them; InvalidData at the end, before the table takes its place, if there were none."""
        for row in rows:
            self.labels[row.label] += 1
            self.splits[row.split] += 1
            yield row
        if not self.labels:
            first = f"{printable(source)} has no photo that can be listed with a label; no table was written."
            raise InvalidData("\n".join([first, *(f"- left out: {line}" for line in self.left_out.lines())]))

    def lines(self) -> list[str]:
        """Return what a person is told."""
        classes = ", ".join(f"{printable(name)} {count:,}" for name, count in sorted(self.labels.items())[:_SHOWN])
        more = f" and {len(self.labels) - _SHOWN:,} more" if len(self.labels) > _SHOWN else ""
        photos = f"{self.labels.total():,} photos of {len(self.labels):,} classes"
        lines = [f"{photos}, from {self.format}: {classes}{more}"]
        if self.splits.keys() - {None}:
            given = (f"{name or 'none given'} {self.splits[name]:,}" for name in _SPLITS[::-1] if name in self.splits)
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
    if is_url(source):
        if wanted != Wanted():
            raise InvalidData("a listing has no fields: leave --field out.")
        output, bucket, converted = Output(out, source, may_replace=replace), Bucket(source), Converted("a listing")
        columns = ["split", "etag"] if bucket.has_splits else ["etag"]
        output.write(converted.counted(bucket.rows(converted.left_out), source), columns, [])
        return converted
    path = Path(source).resolve()
    base = photos if photos and is_url(photos) else Path(photos or (path if path.is_dir() else path.parent))
    with Output(out, base, may_replace=replace) as output:
        form = FORMATS[name] if name else find_format(path)
        converted = Converted(form.title)
        rows = _settled(_rows(form, path, output, wanted, converted.left_out), output, converted.left_out)
        rows = list(converted.counted(rows, source))
        _check_fields(rows, source, wanted)
        columns = [name for name in OWN[2:] if any(getattr(row, name) for row in rows)]
        output.write(rows, columns, [normalised(name) for name in wanted.slices])
        converted.copied = len(output.copied)
    return converted


def _check_fields(rows: list[Row], source: str, wanted: Wanted) -> None:
    """Raise InvalidData if no photo has a field that was asked for: without groups, photos would be parted silently."""
    missing = [] if not wanted.group or any(row.group for row in rows) else [wanted.group]
    missing += [name for place, name in enumerate(wanted.slices) if not any(row.slices[place] for row in rows)]
    if missing:
        raise InvalidData(
            f"{printable(source)} has no field {', '.join(map(printable, missing))} that says something of any photo. "
            f"Name another one with --field, or leave it out."
        )


def _rows(form: Format, source: Path, output: Output, wanted: Wanted, left_out: LeftOut) -> Iterator[Row]:
    for record in form.read(source, wanted, left_out):
        class_name, fields = normalised(record.label), record.fields
        problems = (problem_of_cell(fields.get(name, "")) for name in wanted.fields)
        if problem := problem_of(class_name):
            left_out.add("whose class has a name that cannot be used", f"{record.where}: {problem}")
        elif problem := next(filter(None, problems), None):
            left_out.add("whose group or slice cannot be used", f"{record.where}: it {problem}")
        elif placed := output.place(record, left_out):
            group, slices = fields.get(wanted.group or ""), tuple(fields.get(name) for name in wanted.slices)
            yield Row(placed[0], class_name, record.split, group, placed[1], slices=slices)


def _settled(rows: Iterable[Row], output: Output, left_out: LeftOut) -> list[Row]:
    """Return one row for each path, ordered by path; a photo under two labels is left out altogether."""
    listed: dict[str, Row] = {}
    labels: dict[str, set[str]] = {}
    for row in rows:
        before = listed.setdefault(row.path, row)
        labels.setdefault(row.path, set()).add(row.label)
        if before is not row:
            left_out.add("the same as another one in the source, which is listed", row.path)
            listed[row.path] = min(before, row, key=lambda each: _SPLITS.index(each.split))
    for path, names in labels.items():
        if len(names) > 1:
            del listed[path]
            left_out.add(SEVERAL_LABELS, f"{path} ({', '.join(sorted(names))})")
            output.remove(path)
    return [listed[path] for path in sorted(listed)]
