"""Hugging Face: Parquet files with a column of images, {bytes, path}, and a label, as `Dataset.to_parquet` writes them.

Names of classes are in the file's metadata (ClassLabel); without them the numbers are the names. The split follows from
the names of the files: data/train-00000-of-00001.parquet.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from regraft.converters.records import (
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
)
from regraft.errors import InvalidData, printable
from regraft.photos.folder import open_inside
from regraft.photos.foreign_parquet import ForeignParquet

SUFFIX = ".parquet"


def read_hugging_face(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the rows of a Parquet file, or of all below a folder."""
    root, names = files_of(source, SUFFIX)
    for name in names:
        shown = printable(str(root / name))
        try:
            with open_inside(root, name) as file:
                yield from _read_file(ForeignParquet(file, shown), name, wanted, left_out)
        except OSError as error:
            reason = error.strerror or printable(str(error))
            raise InvalidData(f"{shown} cannot be read: {reason}. Write or download it again.") from None
        except (pa.ArrowException, UnicodeDecodeError) as error:
            reason = printable(" ".join(str(error).split()))
            raise InvalidData(f"{shown} is no sound Parquet file: {reason}. Write or download it again.") from None


def _read_file(file: ForeignParquet, name: str, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    schema = file.schema
    features = _features(schema)
    image = _image_column(schema, features, name)
    label = _label_column(schema, features, wanted, name)
    class_names = features.get(label, {}).get("names")
    _check_fields(schema, wanted, name)
    others = [column for column in dict.fromkeys((*wanted.fields, "split")) if column in schema.names]
    others = [column for column in others if column not in (image, label)]
    split, row = split_in(name), 0
    for batch in file.batches([image, label, *others]):
        for place in range(len(batch)):  # one by one: many rows may share the bytes of one photo
            (cells,) = batch.slice(place, 1).to_pylist()
            where, row = f"{name}: row {row}", row + 1
            fields = {column: text for column in others if (text := _name(cells[column], features.get(column, {})))}
            class_name = _class_name(cells[label], class_names, where)
            content, photo = _photo(cells[image])
            if class_name is None:
                left_out.add(NO_LABEL, where)
            elif content is None and photo is None:
                left_out.add(NO_PHOTO, where)
            else:
                given = split or split_named(fields.get("split"))
                yield Record(where, class_name, content, photo or "", split=given, fields=fields)


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return what the metadata says of the columns, those of which it says what is expected."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}  # written by another library


def _image_column(schema: pa.Schema, features: dict[str, dict[str, Any]], name: str) -> str:
    columns = [column for column in schema.names if features.get(column, {}).get("_type") == "Image"]
    if not columns:
        columns = [field.name for field in schema if pa.types.is_struct(field.type) and _has_bytes(field.type)]
    if not columns:
        columns = [field.name for field in schema if pa.types.is_binary(field.type)]
    if "image" in columns or len(columns) == 1:
        return "image" if "image" in columns else columns[0]
    listed = ", ".join(map(printable, schema.names[:20]))
    raise InvalidData(
        f"{name} must have one column of images, {{bytes, path}}, or one named `image`. Received: {listed}. Remove the "
        f"others, or rename the right one."
    )


def _has_bytes(struct: pa.DataType) -> bool:
    return any(struct.field(place).name == "bytes" for place in range(struct.num_fields))


def _label_column(schema: pa.Schema, features: dict[str, dict[str, Any]], wanted: Wanted, name: str) -> str:
    if wanted.label:
        return only_field(schema.names, wanted.label, "column", name)
    named = [column for column in ("label", "labels") if column in schema.names]
    columns = named[:1] or [column for column in schema.names if features.get(column, {}).get("_type") == "ClassLabel"]
    return only_field(columns, None, "column of labels", name)


def _check_fields(schema: pa.Schema, wanted: Wanted, name: str) -> None:
    for column in wanted.fields:
        if column not in schema.names:
            listed = ", ".join(map(printable, schema.names[:20]))
            raise InvalidData(f"{name} has no column '{printable(column)}'. There are: {listed}. Name one of these.")


def _class_name(cell: Any, class_names: Any, where: str) -> str | None:
    if not isinstance(cell, int) or isinstance(cell, bool) or not isinstance(class_names, list):
        return text_of(cell)
    if cell == -1:
        return None  # how Hugging Face marks a row without a label
    if not 0 <= cell < len(class_names):
        raise InvalidData(
            f"{where} must have a label from 0 to {len(class_names) - 1}, for which the file has names. Received: "
            f"{cell}. Write it again."
        )
    return text_of(class_names[cell])


def _name(cell: Any, feature: dict[str, Any]) -> str | None:
    """The value of another column; of a ClassLabel its name."""
    names = feature.get("names")
    if isinstance(names, list) and isinstance(cell, int) and 0 <= cell < len(names):
        return text_of(names[cell])
    return text_of(cell)


def _photo(cell: Any) -> tuple[bytes | None, str | None]:
    """The bytes and the path of an image; whatever is neither counts as missing."""
    if isinstance(cell, bytes):
        return cell, None
    if not isinstance(cell, dict):
        return None, None
    content, path = cell.get("bytes"), cell.get("path")
    return content if isinstance(content, bytes) else None, path if isinstance(path, str) else None
