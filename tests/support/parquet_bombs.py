"""Parquet files of some kilobytes that unpack to gigabytes, as tables of labels and as photos of Hugging Face."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PHOTO = b"\xff\xd8\xff" + bytes(2**20)


def _written(path: Path, table: pa.Table, groups: int, **options: Any) -> None:
    with pq.ParquetWriter(path, table.schema, compression="zstd", write_statistics=False, **options) as writer:
        for _ in range(groups):
            writer.write_table(table, row_group_size=len(table))


def _labels(paths: list[str]) -> pa.Table:
    return pa.table({"path": paths, "label": ["cat"] * len(paths)})


def pages_of_zeros(path: Path) -> None:
    """Texts of 256 MB, each in a page of its own."""
    _written(path, _labels(["x" * 2**28]), 2, use_dictionary=False)


def rows_without_end(path: Path) -> None:
    """A hundred million rows of nothing."""
    _written(path, pa.table({"path": pa.nulls(5_000_000, pa.string()), "label": pa.nulls(5_000_000, pa.string())}), 20)


def paths_that_differ_by_a_letter(path: Path) -> None:
    """Half a million paths of 4 kB, of which the file has the last letters."""
    names = [f"{'x' * 4_000}{number:05}" for number in range(20_000)]
    _written(path, _labels(names), 25, use_dictionary=False, column_encoding={"path": "DELTA_BYTE_ARRAY"})


def a_text_that_a_dictionary_repeats(path: Path) -> None:
    """A million rows that share a text of 4 kB."""
    names = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), ["x" * 4_000])
    _written(path, pa.table({"path": names, "label": names}), 5, dictionary_pagesize_limit=2**26, store_schema=False)


def _photos(images: pa.Array, labels: pa.Array | None = None) -> pa.Table:
    return pa.table({"image": images, "label": labels if labels is not None else ["cat"] * len(images)})


def a_photo_that_rows_repeat(path: Path) -> None:
    """Rows by the dozen that share one photo of 30 MB."""
    photos = pa.array([b"\xff\xd8\xff" + bytes(30 * 2**20)] * 30, pa.binary())
    images = pa.StructArray.from_arrays([photos, pa.nulls(30, pa.string())], ["bytes", "path"])
    _written(path, _photos(images), 3, dictionary_pagesize_limit=2**30)


def photos_of_zeros(path: Path) -> None:
    """Photos of 1 MB by the hundred, in pages that shrink to nothing."""
    images = [{"bytes": PHOTO + bytes([number % 256]), "path": None} for number in range(300)]
    _written(path, _photos(pa.array(images)), 3, use_dictionary=False)


def small_photos_of_zeros(path: Path) -> None:
    """The same in pages of which each is of an ordinary size."""
    photo = b"\xff\xd8\xff" + bytes(2**17)
    images = pa.array([{"bytes": photo + number.to_bytes(4), "path": None} for number in range(200)])
    _written(path, _photos(images), 100, use_dictionary=False)


def lists_as_labels(path: Path) -> None:
    """Rows whose label is a list of ten million."""
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000_000, pa.int32()), ["cat"])
    labels = pa.ListArray.from_arrays([0, len(values)], values)
    _written(path, _photos(pa.array([{"bytes": PHOTO[:9], "path": None}]), labels), 3)


def numbers_as_wide_as_a_photo(path: Path) -> None:
    """Labels of 1 MB in bytes of a fixed number."""
    labels = pa.array([bytes(2**20)] * 300, pa.binary(2**20))
    images = pa.array([{"bytes": PHOTO[:9], "path": None}] * len(labels))
    _written(path, _photos(images, labels), 2)


Bomb = Callable[[Path], None]
LABELS: list[Bomb] = [
    *(pages_of_zeros, rows_without_end, paths_that_differ_by_a_letter),
    a_text_that_a_dictionary_repeats,
]
PHOTOS: list[Bomb] = [
    *(a_photo_that_rows_repeat, photos_of_zeros, small_photos_of_zeros, lists_as_labels, numbers_as_wide_as_a_photo),
]
