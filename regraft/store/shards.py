"""Shards: immutable Arrow files of rows, each with a checksum of its own.

    <root>/<kind>-<first 16 digits of the namespace's fingerprint>/
        namespace.json      what the arrays are, for people and for `regraft store`
        <random>-<start>-<stop>-<checksum>.arrow
                            shards: immutable Arrow IPC files of rows (key, checksum, seconds, value); the values lie
                            from byte <start> to <stop>, and <checksum> is that of all other bytes
        <the same>.sent.arrow   a shard that lies in the shared root too
        <the same>.keys         all but the values of a shard that lies only there; see `distant.py`
        <random>-...kept.arrow  copies of rows of such shards, which a run has read: a cache
    <root>/leases/          who is using the store now; nothing is collected meanwhile
    <root>/uses/            which rows each version of build/features.arrow was made from; `gc` goes by it

A namespace stands for everything that can change a value and is no matter of one image: weights, cut, dtype, engine. A
key stands for one image and how its view is drawn: a SHA-256 and the number of the view. The shards themselves are the
index: there is nothing else to update, so writers need no lock, and two that compute the same row store it twice.

A shard gets its final name only when its bytes are on the disk, so half a shard is never seen. What is not a value is
verified before Arrow looks at it (a damaged header could crash the process), a value whenever it is read: a shard that
was damaged is set aside, and its rows count as missing. Nothing here is irreplaceable; whatever is missing is computed
again by whoever needs it.

Values are read by plain reads into the caller's array. A memory-mapped file would be charged to the process page by
page, so that memory seemed to grow with the data set, and would keep a file open per shard.
"""

import errno
import math
import mmap
import os
import stat
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import xxhash

from regraft.core.files import NO_ACCESS, put_in_place, temporary_beside, writing
from regraft.store.columns import KEY_BYTES, read_columns, schema_of
from regraft.store.names import KEPT, is_shard

Key = bytes
# Numbers of an OSError: the disk cannot read a file any more, one may not, or it is no file.
_UNREADABLE = {errno.EIO, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENXIO, errno.ELOOP, errno.ESTALE}


def key_of(digest: str, view: int = 0) -> Key:
    """Return a key: the SHA-256 of what the value was made from (64 hexadecimal digits), and the view's number."""
    return bytes.fromhex(digest) + view.to_bytes(2, "big")


def as_array(keys: Sequence[Key]) -> np.ndarray:
    """Return keys as an array that NumPy can sort and search: S34, (n,).

    NumPy drops the zeros at the end of such an item when it makes `bytes` of it; `as_keys` does not.
    """
    return np.frombuffer(b"".join(keys), f"S{KEY_BYTES}")


def as_keys(array: np.ndarray) -> list[Key]:
    """Return what `as_array` was given."""
    contents = array.tobytes()
    return [contents[start : start + KEY_BYTES] for start in range(0, len(contents), KEY_BYTES)]


class Shard:
    """One file: everything but the values is in memory; they are read from the disk when they are asked for."""

    is_here = True  # whether the values lie on this machine

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Look at a shard; ValueError if it is damaged anywhere but in its values, or another namespace's."""
        self.path, self.name = path, name_of(path)
        self.start, stop, seal = layout_of(self.name)
        contents = self._contents(self.start, stop)
        self.size = len(contents)
        if seal_of(contents, self.start, stop) != seal:
            raise ValueError("damaged")
        self.keys, self.checksums, self.seconds = read_columns(contents, shape, dtype)
        self.row_bytes = dtype.itemsize * math.prod(shape)
        if stop - self.start != len(self) * self.row_bytes:
            raise ValueError("not a shard of this namespace")

    def _contents(self, start: int, stop: int) -> mmap.mmap:
        """Return the file, mapped; its values need not be in it."""
        with opened(self.path) as file:
            if not 0 < start <= stop <= os.fstat(file.fileno()).st_size:
                raise ValueError("damaged")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def is_copy(self) -> bool:
        """Whether its rows lie in other shards of the shared root."""
        return self.path.name.endswith(KEPT)

    def read(self, rows: Sequence[int], buffers: Iterable[memoryview]) -> bool:
        """Fill one buffer per row; False as soon as a row is not what was written.

        Raises:
            FileNotFoundError: the shard was merged into another, collected or set aside by another process.
        """
        seeds, checksums = seeds_of(self.keys[rows]), self.checksums[rows].tolist()
        file = -1
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
            for row, buffer, seed, checksum in zip(rows, buffers, seeds, checksums, strict=True):
                if os.preadv(file, [buffer], self.start + row * self.row_bytes) != self.row_bytes:
                    return False
                if xxhash.xxh3_64_intdigest(buffer, seed) != checksum:
                    return False
        except OSError as error:
            if error.errno in _UNREADABLE:
                return False
            raise
        finally:
            if file >= 0:
                os.close(file)
        return True

    def is_sound(self, rows: Sequence[int] | None = None) -> bool:
        """Whether rows, or all of them, are what was written."""
        chosen = list(range(len(self))) if rows is None else rows
        buffer = memoryview(bytearray(self.row_bytes))
        return self.read(chosen, (buffer for _ in chosen))


def write_shard(
    folder: Path, keys: np.ndarray, values: np.ndarray, seconds: np.ndarray, *, ending: str = ".arrow"
) -> Path:
    """Write rows as one new shard and return its path.

    Args:
        folder: of the namespace.
        keys: from `as_array`.
        values: shape (n, *shape), in the order of the keys.
        seconds: what computing each row took; float32, (n,).
        ending: of the file's name, which says what the shard is.
    """
    flat = np.ascontiguousarray(values).reshape(len(keys), -1)
    rows = buffers_of(flat)
    checks = [xxhash.xxh3_64_intdigest(row, seed) for row, seed in zip(rows, seeds_of(keys), strict=True)]
    columns = [
        pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, pa.py_buffer(keys.tobytes())]),
        pa.array(checks, pa.uint64()),
        pa.array(seconds, pa.float32()),
        pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1]),
    ]
    batch = pa.record_batch(columns, schema=schema_of(values.shape[1:], values.dtype))
    number = uuid.uuid4().hex[:16]
    with writing(folder, flat.nbytes):
        temporary = temporary_beside(folder / f"{number}.arrow")
        try:
            with temporary.open("wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
                writer.write_batch(batch)
            start, stop, seal = _layout(temporary)
            path = folder / f"{number}-{start}-{stop}-{seal}{ending}"
            put_in_place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def set_aside(path: Path) -> None:
    """Rename a damaged shard, so that nobody reads it again and a person can look at it."""
    aside = path.with_name(f"{name_of(path)}.damaged")
    try:
        path.replace(aside)
    except FileNotFoundError:
        return  # another process has just done so
    except OSError as error:
        if error.errno not in NO_ACCESS:
            raise
        print(
            f"{path} is damaged and cannot be renamed ({error.strerror}). Its rows count as missing.", file=sys.stderr
        )
        return
    print(f"{path} is damaged. It is kept as {aside.name}, and its rows are computed again.", file=sys.stderr)


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards in a folder, by name; other files, and shards that are being written, are none."""
    try:
        return sorted(path for path in folder.iterdir() if is_shard(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def name_of(path: Path) -> str:
    """Return a shard's name, which is the same whether it is being written, here alone or sent to the shared root."""
    return path.name.lstrip(".").partition(".")[0]


def layout_of(name: str) -> tuple[int, int, str]:
    """Return what a shard's name says: where its values begin and end, and the checksum of all other bytes."""
    _, start, stop, seal = name.split("-")
    return int(start), int(stop), seal


def buffers_of(values: np.ndarray) -> list[memoryview]:
    """Return the bytes of each row of a contiguous array; writing to them changes the array."""
    contents, size = values.reshape(-1).view(np.uint8).data, values[:1].nbytes
    return [contents[start : start + size] for start in range(0, len(contents), size or 1)]


def seeds_of(keys: np.ndarray) -> list[int]:
    """Return what a row's checksum starts from: its key is part of it, so that it can't be taken for another's."""
    ends = keys.view(np.uint8).reshape(-1, KEY_BYTES)[:, -8:]
    return np.ascontiguousarray(ends).view(">u8").ravel().tolist()


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file that has the name of a shard; ValueError if it is none, or one may not read it."""
    try:
        # Whatever is no file does not keep anybody waiting for another end.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("no file")
            yield file
    except OSError as error:
        if error.errno in _UNREADABLE:
            raise ValueError("cannot be read") from error
        raise


def _layout(path: Path) -> tuple[int, int, str]:
    """Return where the values of a shard begin and end, and the checksum of all other bytes."""
    with path.open("rb") as file:
        contents = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    buffer = pa.py_buffer(contents)
    values = pa.ipc.open_file(buffer).read_all().column("value").chunk(0).flatten()
    start = values.buffers()[1].address - buffer.address
    stop = start + len(values) * values.type.bit_width // 8
    return start, stop, seal_of(contents, start, stop)


def seal_of(contents: mmap.mmap | bytes, start: int, stop: int) -> str:
    """Return the checksum of everything in a shard but its values."""
    hasher = xxhash.xxh3_64(contents[:start])
    hasher.update(contents[stop:])
    return f"{hasher.intdigest():016x}"
