"""The store: arrays that are computed once per image and kept between runs.

    <root>/<kind>-<first 16 digits of the namespace's fingerprint>/
        namespace.json      what the arrays are, for people and for `python -m regraft.store list`
        <random>-<start>-<stop>-<checksum>.arrow
                            shards: immutable Arrow IPC files of rows (key, checksum, value); the values lie from byte
                            <start> to <stop>, and <checksum> is that of all other bytes

A namespace stands for everything that can change a value except the image: weights, cut, preprocessing, dtype, engine.
A key is the SHA-256 of the image file's bytes and the number of the view. The shards themselves are the index: there is
nothing to keep in step with them, so writers need no lock, and two that compute the same row merely store it twice.

A shard gets its final name only when its bytes are on the disk, so half a shard is never seen. What is not a value is
verified before Arrow looks at it (a damaged header could crash the process), a value whenever it is read: a shard that
was damaged is set aside, and its rows count as missing. Nothing here is irreplaceable; whatever is missing is computed
again by whoever needs it.
"""

import argparse
import json
import math
import sys
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from regraft.errors import RegraftError
from regraft.files import fingerprint, read_json, readable_bytes, write_bytes, write_json

Key = bytes
_KEY_BYTES = 34  # 32 of the digest, 2 of the view


def key_of(digest: str, view: int = 0) -> Key:
    """Return the key of one view of one image: its file's SHA-256 (64 hexadecimal digits) and the view's number."""
    return bytes.fromhex(digest) + view.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class _Place:
    shard: int
    row: int


class Namespace:
    """All arrays of one kind: same shape, same dtype, same way of computing them. Open it with `open_namespace`."""

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.folder, self.shape, self.dtype = folder, shape, dtype
        self._type = pa.list_(pa.from_numpy_dtype(dtype), math.prod(shape))
        self._shards: list[_Shard] = []
        self._places: dict[Key, _Place] = {}
        self._pending: dict[Key, np.ndarray] = {}
        self._pending_seconds = 0.0
        self.refresh()

    def refresh(self) -> None:
        """Look at the folder again: shards of other writers appear, shards that were set aside disappear."""
        self._shards, self._places = [], {}
        for path in self._paths():
            try:
                shard = _Shard(path, self._type)
            except FileNotFoundError:
                continue  # another process has just set it aside
            except ValueError:
                _set_aside(path)
                continue
            self._places.update((key, _Place(len(self._shards), row)) for row, key in enumerate(shard.keys()))
            self._shards.append(shard)

    def missing(self, keys: Iterable[Key]) -> list[Key]:
        """Return those of `keys` that have to be computed, in order, once each; every row that is there is verified."""
        wanted = list(dict.fromkeys(keys))
        damaged = {place.shard for key in wanted if (place := self._places.get(key)) and not self._is_sound(key, place)}
        if damaged:
            for index in damaged:
                _set_aside(self._shards[index].path)
            self.refresh()
        return [key for key in wanted if key not in self._places]

    def append(self, keys: Sequence[Key], values: np.ndarray, *, seconds: float) -> None:
        """Take rows; `flush` writes them.

        Args:
            keys: from `key_of`, one per row.
            values: this namespace's dtype, shape (len(keys), *shape).
            seconds: what computing them took; `seconds_for` gives it back as long as the rows are kept.
        """
        if values.dtype != self.dtype or values.shape != (len(keys), *self.shape):
            raise ValueError(
                f"values must be {self.dtype} of shape {(len(keys), *self.shape)}. "
                f"Received: {values.dtype} of shape {values.shape}."
            )
        self._pending.update(zip(keys, values, strict=True))
        self._pending_seconds += seconds

    def flush(self) -> None:
        """Write what `append` still holds as one shard."""
        if not self._pending:
            return
        keys = list(self._pending)
        values = np.stack(list(self._pending.values()))
        checks = [_checksum(key, value) for key, value in zip(keys, values, strict=True)]
        flat = pa.array(values.reshape(-1))
        columns = [
            pa.array(keys, pa.binary(_KEY_BYTES)),
            pa.array(checks, pa.uint64()),
            pa.FixedSizeListArray.from_arrays(flat, type=self._type),
        ]
        batch = pa.record_batch(columns, names=["key", "checksum", "value"])
        batch = batch.replace_schema_metadata({"seconds": f"{self._pending_seconds:.6f}"})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        contents = sink.getvalue()
        start = _values_of(pa.ipc.open_file(contents).read_all()).address - contents.address
        stop = start + values.nbytes
        seal = _checksum_outside(contents, start, stop)
        path = self.folder / f"{uuid.uuid4().hex[:16]}-{start}-{stop}-{seal:016x}.arrow"
        write_bytes(path, contents)
        self._places.update((key, _Place(len(self._shards), row)) for row, key in enumerate(keys))
        self._shards.append(_Shard(path, self._type))
        self._pending.clear()
        self._pending_seconds = 0.0

    def seconds_for(self, keys: Iterable[Key]) -> float:
        """Return what computing those of `keys` that are in the store has taken."""
        return sum(self._shards[place.shard].seconds_per_row for key in keys if (place := self._places.get(key)))

    def read(self, keys: Sequence[Key]) -> np.ndarray:
        """Return rows in the order of `keys`: this namespace's dtype, shape (len(keys), *shape).

        Raises:
            KeyError: a key is not in the store; ask `missing` first.
            RegraftError: a row was damaged since `missing` looked at it.
        """
        rows = np.empty((len(keys), *self.shape), self.dtype)
        for index, key in enumerate(keys):
            place = self._places[key]
            if not self._is_sound(key, place):
                path = self._shards[place.shard].path
                _set_aside(path)
                raise RegraftError(
                    f"{path} was damaged while it was in use. It is set aside: run the same command again."
                )
            rows[index] = self._shards[place.shard].value(place.row).reshape(self.shape)
        return rows

    @property
    def stored_bytes(self) -> int:
        """Bytes on the disk."""
        return sum(path.stat().st_size for path in self._paths())

    def __len__(self) -> int:
        return len(self._places)

    def _paths(self) -> list[Path]:
        # Names that start with a dot are shards that are being written.
        return sorted(path for path in self.folder.glob("*.arrow") if not path.name.startswith("."))

    def _is_sound(self, key: Key, place: _Place) -> bool:
        shard = self._shards[place.shard]
        return shard.checksum(place.row) == _checksum(key, shard.value(place.row))


def open_namespace(root: Path, kind: str, facts: dict[str, Any], *, shape: tuple[int, ...], dtype: str) -> Namespace:
    """Open, or create, the namespace of everything that `facts` can change.

    Args:
        root: the store's folder.
        kind: a word for people, the first part of the folder's name.
        facts: JSON-able; whatever can change a value must be in it, and nothing that cannot.
        shape: of one value.
        dtype: of one value, a NumPy name.
    """
    facts = {**facts, "kind": kind, "shape": list(shape), "dtype": dtype}
    folder = root / f"{kind}-{fingerprint(facts)[:16]}"
    description = folder / "namespace.json"
    if not description.exists():
        write_json(description, facts)
    return Namespace(folder, shape, np.dtype(dtype))


class _Shard:
    """One memory-mapped Arrow file; its values are read from the disk when they are looked at, and not before."""

    def __init__(self, path: Path, value_type: pa.DataType) -> None:
        """Map a shard; ValueError if it is damaged anywhere but in its values, or another namespace's."""
        self.path = path
        _, start, stop, seal = path.stem.split("-")
        contents = pa.memory_map(str(path)).read_buffer() if path.stat().st_size else pa.py_buffer(b"")
        if contents.size < int(stop) or _checksum_outside(contents, int(start), int(stop)) != int(seal, 16):
            raise ValueError("damaged")
        table = pa.ipc.open_file(contents).read_all()
        if table.schema.names != ["key", "checksum", "value"] or table.schema.field("value").type != value_type:
            raise ValueError("not a shard of this namespace")
        self._keys = table.column("key").chunk(0)
        self._checksums = table.column("checksum").chunk(0).to_numpy()
        self._values = table.column("value").chunk(0).flatten().to_numpy().reshape(len(table), -1)
        self.seconds_per_row = float((table.schema.metadata or {}).get(b"seconds", 0)) / max(1, len(table))

    def keys(self) -> list[Key]:
        return self._keys.to_pylist()

    def checksum(self, row: int) -> int:
        return int(self._checksums[row])

    def value(self, row: int) -> np.ndarray:
        return self._values[row]


def _checksum(key: Key, value: np.ndarray) -> int:
    # The key is part of it, so that a row can't be taken for another's.
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(value).data.cast("B"), seed=int.from_bytes(key[-8:], "big"))


def _checksum_outside(contents: pa.Buffer, start: int, stop: int) -> int:
    hasher = xxhash.xxh3_64(contents.slice(0, start))
    hasher.update(contents.slice(stop))
    return hasher.intdigest()


def _values_of(table: pa.Table) -> pa.Buffer:
    """The buffer that holds the values of a table with one batch."""
    return table.column("value").chunk(0).flatten().buffers()[1]


def _set_aside(path: Path) -> None:
    aside = path.with_suffix(".damaged")
    try:
        path.replace(aside)
    except FileNotFoundError:
        return  # another process has just done so
    print(f"{path} is damaged. It is kept as {aside.name}, and its rows are computed again.", file=sys.stderr)


def _list(root: Path) -> None:
    for description in sorted(root.glob("*/namespace.json")):
        shards = list(description.parent.glob("*.arrow"))
        size = sum(shard.stat().st_size for shard in shards)
        facts = json.dumps({key: value for key, value in read_json(description).items() if key != "kind"})
        print(f"{description.parent.name:30} {len(shards):5} shards {readable_bytes(size):>10}  {facts}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m regraft.store", description="Look into the store.")
    parser.add_argument("command", choices=["list"])
    parser.add_argument("--root", type=Path, default=Path("build/store"))
    arguments = parser.parse_args()
    _list(arguments.root)
