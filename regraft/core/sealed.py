"""Files of numbers that carry a digest of all their bytes: damage anywhere is found before anything is parsed.

A seal is an XXH3 digest: against damage, not against whoever can write to the file. Tables are ordinary Parquet files,
the seal is in their footer. Other files begin with a line that holds it, and their contents follow.
"""

import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from regraft.core.errors import Damaged
from regraft.core.files import reading, replacing

LINE = 64  # bytes of the first line, a multiple of what Arrow aligns buffers to
_TITLE = b"regraft, sealed by XXH3: "
_MARK, _OPEN = b"seal:", b"0" * 32
_PART = 2**20  # bytes in memory at a time
_TAIL = 8  # bytes at the end of a Parquet file: the length of its footer, and four letters


@contextmanager
def sealing(path: Path) -> Iterator[Path]:
    """Yield a temporary name of a file to which contents are added after its first `LINE` bytes; then it is sealed."""
    with replacing(path) as temporary:
        temporary.write_bytes(_first_line(_OPEN.decode()))
        yield temporary
        with temporary.open("r+b") as file:
            line = _first_line(_digest(file))
            file.seek(0)
            file.write(line)


def check_seal(file: IO[bytes], path: Path) -> None:
    """Leave the file at its contents, or raise Damaged; `path` is what it is called."""
    file.seek(0)
    if file.read(LINE) != _first_line(_digest(file)):
        raise Damaged.of(path, "the contents that it was sealed with", "others")
    file.seek(LINE)


def write_table(path: Path, table: pa.Table | pd.DataFrame) -> None:
    """Write a table as Parquet; the `attrs` of a frame travel with it, as pandas does it."""
    if isinstance(table, pd.DataFrame):
        attrs = json.dumps(table.attrs)
        table = pa.Table.from_pandas(table, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), "PANDAS_ATTRS": attrs})
    # Last, so that no name in the table or its metadata is taken for the seal.
    metadata = {**(table.schema.metadata or {}), "zz_seal": _MARK + _OPEN}
    # On disk, and not in memory, where it would lie beside the table.
    with replacing(path) as temporary, temporary.open("w+b") as file:
        pq.write_table(table.replace_schema_metadata(metadata), file)
        file.seek(-_TAIL, os.SEEK_END)
        footer = int.from_bytes(file.read(4), "little") + _TAIL
        start = file.seek(-footer, os.SEEK_END)
        place = start + file.read().rindex(_MARK + _OPEN) + len(_MARK)
        digest = _digest(file, begin=0)
        file.seek(place)
        file.write(digest.encode())


def read_table(path: Path, *, leave_out: Collection[str] = ()) -> pa.Table:
    """Return what `write_table` wrote.

    Args:
        path: of the file.
        leave_out: columns that nobody needs.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it is damaged.
    """
    with reading(path, "a sealed Parquet file"):
        with path.open("rb") as file:
            contents = bytearray(os.fstat(file.fileno()).st_size)
            file.readinto(contents)
        mark = contents.rfind(_MARK)
        digits = slice(mark + len(_MARK), mark + len(_MARK) + len(_OPEN))
        seal, contents[digits] = contents[digits], _OPEN
        if mark < 0 or seal != xxhash.xxh3_128_hexdigest(contents).encode():
            raise Damaged.of(path, "the contents that it was sealed with", "others")
        if not leave_out:
            return pq.read_table(pa.BufferReader(contents))
        names = [name for name in pq.read_schema(pa.BufferReader(contents)).names if name not in leave_out]
        return pq.read_table(pa.BufferReader(contents), columns=names)


def read_frame(
    path: Path, columns: dict[str, str], *, texts: str | None = None, leave_out: Collection[str] = ()
) -> pd.DataFrame:
    """Return the same as a frame, which has to have exactly these columns, of these kinds.

    Args:
        path: of the file.
        columns: names and kinds.
        texts: a regular expression for the names of columns of text that may follow; None where none may.
        leave_out: columns that are not read.
    """
    table = read_table(path, leave_out=leave_out)
    columns = {name: kind for name, kind in columns.items() if name not in leave_out}
    with reading(path, f"the columns {', '.join(columns)}"):
        frame = table.to_pandas()
        names, more = list(frame.columns[: len(columns)]), list(map(str, frame.columns[len(columns) :]))
        if names != list(columns) or len(set(more)) < len(more) or not all(re.fullmatch(texts or "", n) for n in more):
            raise ValueError(f"the columns {', '.join(map(str, frame.columns))}")
        frame = frame.astype(columns | dict.fromkeys(more, "str"))
        frame.attrs = json.loads((table.schema.metadata or {})[b"PANDAS_ATTRS"])
    del table
    release_memory()
    return frame


def release_memory() -> None:
    """Give back to the system what Arrow keeps of tables that are gone: as much as several columns."""
    pa.default_memory_pool().release_unused()


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name."""
    with sealing(path) as temporary, temporary.open("r+b") as file:
        file.seek(LINE)
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return what `write_arrays` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is damaged.
    """
    with reading(path, "sealed arrays"), path.open("rb") as opened:
        check_seal(opened, path)
        with np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def _digest(file: IO[bytes], *, begin: int = LINE) -> str:
    hasher = xxhash.xxh3_128()
    file.seek(begin)
    while part := file.read(_PART):
        hasher.update(part)
    return hasher.hexdigest()


def _first_line(digest: str) -> bytes:
    return (_TITLE + digest.encode()).ljust(LINE - 1) + b"\n"
