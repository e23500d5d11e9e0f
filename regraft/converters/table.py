"""Writing the table of photos: labels.csv or labels.parquet, row by row, and whole or not at all."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from regraft.converters.records import Row
from regraft.errors import InvalidData, printable
from regraft.files import replacing
from regraft.photos.label_rows import OWN

SUFFIXES = (".csv", ".parquet")
_OPTIONAL = OWN[2:]  # after path and label
_ROWS = 20_000  # that a row group of a Parquet file holds, and that are in memory at once


def check_table_path(out: Path, *, may_replace: bool) -> None:
    """Raise InvalidData if no table can be written there, or if one is there already and must stay."""
    shown = printable(str(out))
    if out.suffix.lower() not in SUFFIXES:
        raise InvalidData(f"the table must be named labels.csv or labels.parquet. Received: {shown}.")
    if out.exists() and not may_replace:
        raise InvalidData(f"{shown} is there already. Add --replace to write it anew, or name another one.")


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Return the optional columns for which any row has a value."""
    missing = set(_OPTIONAL)
    for row in rows:
        missing -= {name for name in missing if getattr(row, name)}
        if not missing:
            break
    return [name for name in _OPTIONAL if name not in missing]


def write_labels(out: Path, rows: Iterable[Row], columns: Sequence[str], slices: Sequence[str]) -> None:
    """Write a table.

    Args:
        out: a path that ends in .csv or .parquet; the file is replaced whole, once all rows are there.
        rows: in their order; they are asked for one by one.
        columns: those of split, group, sha256 and etag that it has.
        slices: the names of the further columns, in the order in which rows have them.
    """
    names = ["path", "label", *columns, *slices]
    cells = ([row.path, row.label, *(getattr(row, name) for name in columns), *row.slices] for row in rows)
    with replacing(out) as temporary:
        if out.suffix.lower() == ".csv":
            with temporary.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(names)
                writer.writerows(cells)  # None is an empty cell
        else:
            _write_parquet(temporary, cells, names)


def _write_parquet(out: Path, cells: Iterator[list[str | None]], names: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in names])
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        while batch := list(islice(cells, _ROWS)):
            arrays = [pa.array(column, pa.string()) for column in zip(*batch, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))
