"""Parquet files that others wrote, read within limits of memory and time, whatever they declare.

A few bytes of such a file unpack to gigabytes: a page of zeros, a long text that a dictionary repeats in every row,
texts that each extend the one before. Arrow unpacks a page whole, and sizes in the footer may be wrong. So the header
of each page is read first, as Arrow reads it: from these follow the largest pages and how many rows may be unpacked at
a time. Columns of texts are read as dictionaries, in which a repeated value is held once.

Source: the page header in Thrift's compact protocol, https://parquet.apache.org/docs/file-format.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regraft.errors import InvalidData, printable
from regraft.files import most_unpacked, readable_bytes

_MOST_FOOTER = 8 * 2**20  # bytes; as objects they are several hundred times as many
_MOST_HEADER = 2**16  # bytes of a page's header
_DEEPEST = 8  # structs within structs in it
_MOST_ROWS = 1_000_000  # and one more for each byte of the file
_ROWS, _BYTES = 4_096, 32 * 2**20  # of a batch
_MOST_TEXT = 4_096  # bytes; no path of a file is longer
_SHOWN = 60  # letters of a column's name
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3  # kinds of pages
_ABOUT = {_DATA: 5, _DICTIONARY: 7, _DATA_2: 8}  # the field with the facts of each kind
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_2: 4}  # and the field in it with the encoding
_DELTA_BYTE_ARRAY = 7  # each value begins with a part of the one before; Arrow makes no dictionary of such


@dataclass(frozen=True, slots=True)
class _Page:
    """What the header of a page says."""

    kind: int
    unpacked: int  # bytes
    packed: int  # bytes
    values: int
    encoding: int


class ForeignParquet:
    """A Parquet file of which nothing is believed."""

    def __init__(self, file: BinaryIO, shown: str) -> None:
        """Read the schema.

        Args:
            file: open, and seekable.
            shown: what messages call it.

        Raises:
            InvalidData: the footer is too large.
            pa.ArrowException, OSError: it is no Parquet file, or cannot be read.
        """
        self._file, self._shown = file, shown
        self._size = os.fstat(file.fileno()).st_size
        file.seek(max(0, self._size - 8))
        if _MOST_FOOTER < (footer := int.from_bytes(file.read(4), "little")) < self._size:
            raise self._refused(f"a footer of at most {readable_bytes(_MOST_FOOTER)}", readable_bytes(footer))
        file.seek(0)
        plain = pq.ParquetFile(file)
        leaves = [plain.schema.column(place) for place in range(len(plain.schema))]
        # Arrow cannot read those within a struct so.
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.path == leaf.name]
        self._table = pq.ParquetFile(
            file, metadata=plain.metadata, read_dictionary=texts, buffer_size=2**20, pre_buffer=False
        )
        self._repeating = {
            field.name
            for field in self._table.schema_arrow
            if field.name in texts and pa.types.is_dictionary(field.type)
        }
        self.schema = plain.schema_arrow

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of some columns; those of texts or bytes are dictionaries.

        Raises:
            InvalidData: the columns hold lists, or unpack to more than a file of this size should.
            pa.ArrowException, OSError: the file is damaged.
        """
        for field in self._table.schema_arrow:
            if _is_among(field.name, columns) and not _is_readable(field.type):
                expected = f"texts, numbers or truth values in '{printable(field.name[:_SHOWN])}'"
                raise self._refused(expected, printable(str(field.type)))
        rows, total, seen = self._rows_at_a_time(columns), 0, 0
        for batch in self._table.iter_batches(batch_size=rows, columns=list(columns)):
            seen += len(batch)
            self._check_rows(seen)
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                total += self._bytes_of(column, name)
            if total > most_unpacked(self._size):
                raise self._refused(
                    f"values of at most {readable_bytes(most_unpacked(self._size))} in all rows together, since the "
                    f"file has {readable_bytes(self._size)}",
                    "more",
                )
            yield batch

    def _rows_at_a_time(self, columns: Sequence[str]) -> int:
        """Return how many rows can be unpacked to a batch of ordinary size, once every page was looked at."""
        facts = self._table.metadata
        self._check_rows(facts.num_rows)
        rows, chunks = _ROWS, 0
        largest: dict[tuple[str, bool], tuple[int, int]] = defaultdict(lambda: (0, 0))
        for group in range(facts.num_row_groups):
            for place in range(facts.num_columns):
                chunk = facts.row_group(group).column(place)
                if not _is_among(chunk.path_in_schema, columns):
                    continue
                start, length = _place_of(chunk)
                chunks += length
                if start < 0 or length < 0 or chunks > self._size:
                    raise pa.ArrowInvalid("its columns lie outside of it, or in each other")
                for page in self._pages(start, start + length):
                    key = (chunk.path_in_schema, page.kind == _DICTIONARY)
                    largest[key] = max(largest[key], (page.unpacked, page.packed))
                    if page.encoding == _DELTA_BYTE_ARRAY:
                        raise self._refused("values that are written one by one", "the encoding DELTA_BYTE_ARRAY")
                    rows = min(rows, _rows_of(page, may_repeat=chunk.path_in_schema in self._repeating))
        unpacked, packed = (sum(sizes) for sizes in zip(*largest.values(), strict=True)) if largest else (0, 0)
        if unpacked > most_unpacked(packed):
            raise self._refused(
                f"pages that unpack to at most {readable_bytes(most_unpacked(packed))} at a time, since the largest "
                f"ones have {readable_bytes(packed)}",
                readable_bytes(unpacked),
            )
        return max(rows, 1)

    def _pages(self, place: int, end: int) -> Iterator[_Page]:
        while place < end:
            self._file.seek(place)
            header = _Header(self._file.read(min(_MOST_HEADER, end - place)))
            try:
                fields = header.struct()
                kind = fields[1]
                about = fields.get(_ABOUT.get(kind, 0), {1: 0})
                page = _Page(kind, fields[2], fields[3], about[1], about.get(_ENCODING.get(kind, 0), 0))
                place += header.place + page.packed
                if min(page.unpacked, page.packed, page.values) < 0:
                    raise ValueError
            except (LookupError, TypeError, ValueError):
                raise pa.ArrowInvalid("the header of a page is damaged") from None
            yield page

    def _check_rows(self, rows: int) -> None:
        if rows > (most := _MOST_ROWS + self._size):
            raise self._refused(f"at most {most:,} rows, a million and one for each of its bytes", f"{rows:,} or more")

    def _bytes_of(self, array: pa.Array, name: str) -> int:
        """Return how many bytes the texts of a batch would have if each row held its own; check the longest."""
        if pa.types.is_struct(array.type):
            return sum(self._bytes_of(child, name) for child in array.flatten())
        if pa.types.is_fixed_size_binary(array.type):
            return len(array) * array.type.byte_width
        values = array.dictionary if pa.types.is_dictionary(array.type) else array
        if not _is_binary(values.type):
            return 0
        lengths = pc.binary_length(values).cast(pa.int64())
        longest = pc.max(lengths).as_py() or 0
        if longest > _MOST_TEXT and is_text(values.type):
            raise self._refused(
                f"texts of at most {_MOST_TEXT:,} bytes in '{printable(name[:_SHOWN])}'", f"{longest:,}"
            )
        return pc.sum(lengths if values is array else lengths.take(array.indices)).as_py() or 0

    def _refused(self, expected: str, found: str) -> InvalidData:
        return InvalidData(
            f"{self._shown} must have {expected}. Received: {found}. Write it anew, for instance with pandas' "
            f"to_parquet; if somebody else wrote it, ask whether it is what it should be."
        )


def texts_of(column: pa.Array) -> list[str | None]:
    """Return the cells of a column of a batch as texts, equal ones as one object; numbers are written out."""
    if not pa.types.is_dictionary(column.type):
        return column.cast(pa.string()).to_pylist()
    used = pc.unique(column.indices).drop_null()
    texts = dict(zip(used.to_pylist(), column.dictionary.take(used).cast(pa.string()).to_pylist(), strict=True))
    return [texts.get(place) for place in column.indices.to_pylist()]


def _is_among(path: str, columns: Sequence[str]) -> bool:
    """Whether PyArrow reads a column, or one of its parts, where some are asked for by their names."""
    return path in columns or path.partition(".")[0] in columns


def _place_of(chunk: Any) -> tuple[int, int]:
    """Return where the pages of a column in a row group begin, as Arrow finds it, and their bytes."""
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    return start, chunk.total_compressed_size


def _rows_of(page: _Page, *, may_repeat: bool) -> int:
    """Return how many rows that are as those of a page a batch may have."""
    if page.kind == _DICTIONARY and may_repeat:  # a value is held once
        return _ROWS
    values = 1 if page.kind == _DICTIONARY else page.values  # one may be as large as all, and repeated
    return values * _BYTES // page.unpacked if page.unpacked and page.kind in _ABOUT else _ROWS


def _is_readable(kind: pa.DataType) -> bool:
    """Whether a column has one value in each row, of a kind that is known here."""
    if pa.types.is_struct(kind):
        return all(_is_readable(kind.field(place).type) for place in range(kind.num_fields))
    is_fixed = pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind)
    return is_fixed or pa.types.is_null(kind) or pa.types.is_dictionary(kind) or _is_binary(kind)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this kind holds texts, and no dictionary of them."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


class _Header:
    """A struct in Thrift's compact protocol; of its fields, those that are 32-bit integers or structs."""

    def __init__(self, contents: bytes) -> None:
        self._contents = contents
        self.place = 0  # behind what was read

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the fields by their numbers; LookupError or ValueError if the bytes are no struct."""
        if depth > _DEEPEST:
            raise ValueError("too deep")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            kind = head & 15
            number = number + (head >> 4) if head >> 4 else self._integer()
            if kind == 12:
                fields[number] = self.struct(depth + 1)
            elif kind == 5:
                fields[number] = self._integer()
            elif kind in (4, 6):
                self._integer()
            elif kind in (3, 7, 8):  # a byte, a double, bytes with their number before them
                count = {3: 1, 7: 8}.get(kind) or self._varint()
                self.place += count
            elif kind not in (1, 2):  # a truth value has no bytes of its own
                raise ValueError("a kind of field that no page has")
        return fields

    def _byte(self) -> int:
        self.place += 1
        return self._contents[self.place - 1]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
