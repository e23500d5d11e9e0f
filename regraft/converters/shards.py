"""Files with many photos inside: Parquet of Hugging Face, and tar files of WebDataset.

Hugging Face: a column of images, {bytes, path}, and a label, as `Dataset.to_parquet` writes them; names of classes are
in the metadata (ClassLabel). WebDataset: files that follow each other and share a key are one sample: 0.jpg, 0.cls,
0.json; the key is the path up to the first dot of the name. The split follows from the names of the files.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import pyarrow as pa

from regraft.converters.records import (
    MOST_BYTES,
    NO_LABEL,
    NO_PHOTO,
    LeftOut,
    Record,
    Wanted,
    files_of,
    only_field,
    split_in,
    split_named,
    text_of,
    texts_in,
)
from regraft.core.errors import InvalidData, printable
from regraft.photos.folder import open_inside
from regraft.photos.foreign_parquet import ForeignParquet

PARQUET, TAR = ".parquet", ".tar"
_PHOTOS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "jp2", "ppm", "img", "image")
_LABELS = ("cls", "txt", "text", "label")  # kinds of files that hold the label alone, the most telling first
_KEYS = ("label", "class", "class_name", "cls")  # of a JSON file
_MOST_TEXT = 2**20  # bytes of a label or of a JSON file
_MOST_HEADER = 5_000  # bytes of a member's name and attributes; no path of a file is longer than 4,096
_MOST_READS = 100  # behind the end of a file, before it counts as cut off
_SPLIT = re.compile(r"((?:.*/)?[^/.]*)\.([^/]+)")


def read_hugging_face(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the rows of a Parquet file, or of all below a folder."""
    root, names = files_of(source, PARQUET)
    for name in names:
        shown = printable(str(root / name))
        try:
            with open_inside(root, name) as file, ForeignParquet(file, shown) as table:
                yield from _parquet_rows(table, name, wanted, left_out)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            reason = printable(" ".join(str(getattr(error, "strerror", None) or error).split()))
            raise InvalidData(f"{shown} is no sound Parquet file: {reason}. Write or download it again.") from None


def _parquet_rows(table: ForeignParquet, name: str, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    columns = table.schema.names
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        facts: dict[str, Any] = {column: each for column, each in features.items() if isinstance(each, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        facts = {}  # written by another library
    image = _image_column(table.schema, facts, name)
    labels = [column for column in ("label", "labels") if column in columns][:1]
    labels = labels or [column for column in columns if facts.get(column, {}).get("_type") == "ClassLabel"]
    label = only_field(columns if wanted.label else labels, wanted.label, "column of labels", name)
    for column in wanted.fields:
        only_field(columns, column, "column", name)
    others = [column for column in dict.fromkeys((*wanted.fields, "split")) if column in columns]
    others = [column for column in others if column not in (image, label)]
    row = 0
    for batch in table.batches([image, label, *others]):
        for cells in batch.to_pylist():
            where, row = f"{name}: row {row}", row + 1
            fields = {column: text for column in others if (text := _name(cells[column], facts.get(column), where))}
            class_name = _name(cells[label], facts.get(label), where)
            content, photo = _photo(cells[image])
            if class_name is None or (content is None and photo is None):
                left_out.add(NO_LABEL if class_name is None else NO_PHOTO, where)
            else:
                split = split_in(name) or split_named(fields.get("split"))
                yield Record(where, class_name, content, photo or "", split=split, fields=fields)


def _image_column(schema: pa.Schema, facts: dict[str, Any], name: str) -> str:
    columns = [column for column in schema.names if facts.get(column, {}).get("_type") == "Image"]
    columns = columns or [field.name for field in schema if _holds_bytes(field.type)]
    if "image" in columns or len(columns) == 1:
        return "image" if "image" in columns else columns[0]
    listed = ", ".join(map(printable, schema.names[:20]))
    raise InvalidData(
        f"{name} must have one column of images, {{bytes, path}}, or one named `image`. Received: {listed}. Remove the "
        f"others, or rename the right one."
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(place).name == "bytes" for place in range(kind.num_fields))
    return pa.types.is_binary(kind)


def _name(cell: Any, facts: Any, where: str) -> str | None:
    """The text of a cell; of a ClassLabel the name of the class, None for -1, which marks a row without a label."""
    names = (facts or {}).get("names")
    if not isinstance(cell, int) or isinstance(cell, bool) or not isinstance(names, list):
        return text_of(cell)
    if not -1 <= cell < len(names):
        raise InvalidData(
            f"{where} must have a label from 0 to {len(names) - 1}, for which the file has names. Received: {cell}. "
            f"Write it again."
        )
    return text_of(names[cell]) if cell >= 0 else None


def _photo(cell: Any) -> tuple[bytes | None, str | None]:
    """The bytes and the path of an image; whatever is neither counts as missing."""
    cell = cell if isinstance(cell, dict) else {"bytes": cell}
    content, path = cell.get("bytes"), cell.get("path")
    return content if isinstance(content, bytes) else None, path if isinstance(path, str) else None


class _Member(tarfile.TarInfo):
    """A member whose header is read into memory only if it is as small as headers are."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        is_plain = member.isfile() or member.isdir() or member.issym() or member.islnk() or member.isdev()
        if member.size < 0 or (not is_plain and member.size > _MOST_HEADER):
            raise tarfile.ReadError(f"a header of {member.size:,} bytes; at most {_MOST_HEADER:,} are read")
        return member


class _Ending:
    """A file that is not read for ever behind its end; it cannot be sought in, so no header leads back to itself."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._reads_left = file, _MOST_READS

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; EOFError behind the end."""
        content = self._file.read(size)
        self._reads_left -= not content
        if not self._reads_left:
            raise EOFError("it ends within a file that should be longer")
        return content


def read_webdataset(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the samples of a tar file, or of all below a folder; nothing is unpacked by its name."""
    root, names = files_of(source, TAR)
    for name in names:
        shown = printable(str(root / name))
        try:
            with (
                open_inside(root, name) as file,
                tarfile.open(fileobj=cast(BinaryIO, _Ending(file)), mode="r|", tarinfo=_Member) as tar,
            ):
                for key, members in _samples(tar, name, left_out):
                    if record := _sample_record(f"{name}: {key}", members, wanted, left_out, split_in(name)):
                        yield record
        except (OSError, tarfile.TarError, EOFError, ValueError, IndexError, RecursionError) as error:
            reason = printable(getattr(error, "strerror", None) or str(error))
            raise InvalidData(f"{shown} is no sound tar file: {reason}. Write or download it again.") from None


def _samples(tar: tarfile.TarFile, name: str, left_out: LeftOut) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield key and members of each sample, by their kind: the name after its first dot, in small letters."""
    key, members = None, {}
    for member in tar:
        tar.members = []  # type: ignore[attr-defined] - or it keeps all headers that it has read
        match = _SPLIT.fullmatch(member.name)
        if not match or not member.isreg() or member.issparse() or re.search(r"(^|/)\.+[^./]", member.name):
            continue
        if match[1] != key:
            if members:
                yield str(key), members
            key, members = match[1], {}
        kind = match[2].lower()
        is_photo = kind in _PHOTOS
        if not is_photo and kind not in (*_LABELS, "json"):
            continue
        if member.size > (MOST_BYTES if is_photo else _MOST_TEXT):
            left_out.add("with a file that is too large", f"{name}: {member.name} ({member.size:,} bytes)")
        elif is_photo and any(other in _PHOTOS and other != kind for other in members):
            members[kind] = b""  # the sample cannot be used, and need not be held
        elif file := tar.extractfile(member):
            members[kind] = file.read()
    if members:
        yield str(key), members


def _sample_record(
    where: str, members: dict[str, bytes], wanted: Wanted, left_out: LeftOut, split: str | None
) -> Record | None:
    photos = [kind for kind in members if kind in _PHOTOS]
    if len(photos) != 1:
        left_out.add("with several photos" if photos else NO_PHOTO, where)
        return None
    kind = "json"
    try:
        contents = json.loads(members.get(kind, b"{}").decode("utf-8-sig"))
        fields = texts_in(contents) if isinstance(contents, dict) else {}
        label = fields.get(wanted.label) if wanted.label else None
        if not wanted.label:
            kind = next((kind for kind in _LABELS if kind in members), "")
            label = text_of(members[kind].decode("utf-8-sig")) if kind else None
            label = label or next((fields[key] for key in _KEYS if key in fields), None)
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{where}.{kind} cannot be read: {printable(str(error))}. Write it again.") from None
    if label is None:
        left_out.add(NO_LABEL, where)
        return None
    return Record(where, label, members[photos[0]], split=split or split_named(fields.get("split")), fields=fields)
