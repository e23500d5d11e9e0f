"""From a source to the table: photos are found or copied, each is listed once, and what is left out is counted."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from regraft.converters.bucket import Bucket
from regraft.converters.formats import FORMATS, Format, find_format
from regraft.converters.photo_files import PhotoFiles
from regraft.converters.records import SEVERAL_LABELS, LeftOut, Record, Row, Wanted
from regraft.converters.table import check_table_path, columns_of, write_labels
from regraft.errors import InvalidData, printable
from regraft.photos.class_names import normalised, problem_of
from regraft.photos.label_rows import problem_of_cell
from regraft.photos.photo_urls import is_url

_COPY = "the same as another one in the source, which is listed"
_SPLITS = ("test", "val", "train", None)  # the best protected one first
_SHOWN = 20  # classes whose photos are counted in words


@dataclass(frozen=True, slots=True)
class Converted:
    """What a table has."""

    format: str  # in words
    photos: int
    copied: int  # photos that were written beside the table
    labels: Counter[str]
    splits: Counter[str | None]
    left_out: LeftOut

    def lines(self) -> list[str]:
        """Say it to a person."""
        classes = ", ".join(f"{printable(name)} {count:,}" for name, count in sorted(self.labels.items())[:_SHOWN])
        more = f" and {len(self.labels) - _SHOWN:,} more" if len(self.labels) > _SHOWN else ""
        lines = [f"{self.photos:,} photos of {len(self.labels):,} classes, from {self.format}: {classes}{more}"]
        if self.splits.keys() - {None}:
            given = (
                f"{split or 'none given'} {self.splits[split]:,}" for split in _SPLITS[::-1] if split in self.splits
            )
            lines.append(f"splits: {', '.join(given)}")
        if self.copied:
            lines.append(f"{self.copied:,} photos were written beside the table")
        if self.left_out.count:
            lines.append(f"{self.left_out.count:,} are left out:")
            lines += [f"- {line}" for line in self.left_out.lines()]
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
    check_table_path(out, may_replace=replace)
    left_out = LeftOut()
    if is_url(source):
        return _of_bucket(source, out, wanted, left_out)
    path = Path(source).resolve()
    form = FORMATS[name] if name else find_format(path)
    base = photos if photos and is_url(photos) else Path(photos or (path if path.is_dir() else path.parent))
    files = PhotoFiles(base, out.parent)
    with files.kept_if_listed(out):
        rows = _settled(_rows(form, path, files, wanted, left_out), files, left_out)
        counting = _Counting(rows)
        _check_any(len(rows), source, left_out)
        _check_fields(rows, source, wanted)
        write_labels(out, counting, columns_of(rows), [normalised(name) for name in wanted.slices])
    return Converted(form.title, len(rows), len(files.copied), counting.labels, counting.splits, left_out)


def _of_bucket(source: str, out: Path, wanted: Wanted, left_out: LeftOut) -> Converted:
    if wanted != Wanted():
        raise InvalidData("a listing has no fields: leave --field out.")
    bucket = Bucket(source)
    columns = ["split", "etag"] if bucket.layout.has_splits else ["etag"]
    counting = _Counting(bucket.rows(left_out))
    write_labels(out, _or_none(counting, source, left_out), columns, [])
    total = counting.labels.total()
    return Converted("a listing", total, 0, counting.labels, counting.splits, left_out)


def _or_none(rows: Iterable[Row], source: str, left_out: LeftOut) -> Iterator[Row]:
    """Yield rows; InvalidData at the end, before the table takes its place, if there were none."""
    count = 0
    for row in rows:
        count += 1
        yield row
    _check_any(count, source, left_out)


def _check_any(count: int, source: str, left_out: LeftOut) -> None:
    if not count:
        lines = [f"{printable(source)} has no photo that can be listed with a label; no table was written."]
        raise InvalidData("\n".join([*lines, *(f"- left out: {line}" for line in left_out.lines())]))


class _Counting:
    """Rows, counted as they pass."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows
        self.labels: Counter[str] = Counter()
        self.splits: Counter[str | None] = Counter()

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.labels[row.label] += 1
            self.splits[row.split] += 1
            yield row


def _check_fields(rows: list[Row], source: str, wanted: Wanted) -> None:
    """Raise InvalidData if a field that was asked for is nowhere: without groups, photos would be parted in silence."""
    missing = [] if not wanted.group or any(row.group for row in rows) else [wanted.group]
    missing += [name for place, name in enumerate(wanted.slices) if not any(row.slices[place] for row in rows)]
    if missing:
        raise InvalidData(
            f"{printable(source)} has no field {', '.join(map(printable, missing))} that says something of any photo. "
            f"Name another one with --field, or leave it out."
        )


def _rows(form: Format, source: Path, files: PhotoFiles, wanted: Wanted, left_out: LeftOut) -> Iterator[Row]:
    for record in form.read(source, wanted, left_out):
        class_name = normalised(record.label)
        if problem := problem_of(class_name):
            left_out.add("whose class has a name that cannot be used", f"{record.where}: {problem}")
        elif problem := _problem_of_fields(record, wanted):
            left_out.add("whose group or slice cannot be used", f"{record.where}: it {problem}")
        elif placed := files.place(record, left_out):
            yield _row(record, class_name, placed, wanted)


def _problem_of_fields(record: Record, wanted: Wanted) -> str | None:
    problems = (problem_of_cell(record.fields.get(name, "")) for name in wanted.fields)
    return next((problem for problem in problems if problem), None)


def _row(record: Record, class_name: str, placed: tuple[str, str | None], wanted: Wanted) -> Row:
    return Row(
        placed[0],
        class_name,
        split=record.split,
        group=record.fields.get(wanted.group) if wanted.group else None,
        sha256=placed[1],
        etag=None,
        slices=tuple(record.fields.get(name) for name in wanted.slices),
    )


def _settled(rows: Iterable[Row], files: PhotoFiles, left_out: LeftOut) -> list[Row]:
    """Return one row for each path, ordered by path; a photo under two labels is left out altogether."""
    kept: dict[str, Row] = {}
    other_labels: dict[str, set[str]] = {}
    for row in rows:
        before = kept.setdefault(row.path, row)
        if before is row:
            continue
        if before.label != row.label:
            other_labels.setdefault(row.path, {before.label}).add(row.label)
        left_out.add(_COPY, row.path)
        kept[row.path] = min(before, row, key=lambda each: _SPLITS.index(each.split))
    for path, labels in other_labels.items():
        del kept[path]
        left_out.add(SEVERAL_LABELS, f"{path} ({', '.join(sorted(labels))})")
        files.remove(path)
    return [kept[path] for path in sorted(kept)]
