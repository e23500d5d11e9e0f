"""Shards with a right checksum in their names that hold something else: treated as absent, whatever it is."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from regraft.store import overview
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.shards import seeds_of
from tests.support.store import KEYS, VALUES, fill, shards

ROWS = 3
KEY_ARRAY = np.frombuffer(b"".join(KEYS[:ROWS]), "S34")
CHECKSUMS = [
    xxhash.xxh3_64_intdigest(row.tobytes(), seed) for row, seed in zip(VALUES, seeds_of(KEY_ARRAY), strict=False)
]


def columns(**others: Any) -> dict[str, Any]:
    """The columns of a sound shard of three rows, with others in their place."""
    values = pa.FixedSizeListArray.from_arrays(pa.array(VALUES[:ROWS].reshape(-1)), 4)
    sound = {
        "key": pa.array(KEYS[:ROWS], pa.binary(34)),
        "checksum": pa.array(CHECKSUMS, pa.uint64()),
        "seconds": pa.array([1.0] * ROWS, pa.float32()),
        "value": values,
    }
    return {**sound, **others}


def put(folder: Path, contents: bytes, start: int | None = None, stop: int | None = None) -> Path:
    """Write a file under the name of a shard, with the checksum of all that is no value."""
    found = contents.find(VALUES[:ROWS].tobytes())
    start = start if start is not None else max(found, 1)
    stop = stop if stop is not None else min(start + VALUES[:ROWS].nbytes, len(contents))
    seal = xxhash.xxh3_64_hexdigest(contents[:start] + contents[stop:])
    path = folder / f"{'0' * 16}-{start}-{stop}-{seal}.arrow"
    path.write_bytes(contents)
    return path


def arrow(*batches: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def batch(**others: Any) -> pa.RecordBatch:
    return pa.record_batch(columns(**others))


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], Namespace]:
    return lambda: open_namespace(tmp_path, "features", {}, shape=(4,), dtype="float32")


@pytest.fixture
def store(opened: Callable[[], Namespace]) -> Namespace:
    """A store with one sound row."""
    store = opened()
    fill(store, 5)
    return store


def test_what_these_tests_start_from_is_sound(store, opened):
    put(store.folder, arrow(batch()))
    assert opened().missing(KEYS) == KEYS[3:5]
    assert np.array_equal(opened().read(KEYS[:3]), VALUES[:3])


FLAT = pa.array(VALUES[:ROWS].reshape(-1))
HOSTILE: dict[str, Callable[[], bytes]] = {
    "int32 of the same size": lambda: arrow(batch(value=pa.FixedSizeListArray.from_arrays(FLAT.view(pa.int32()), 4))),
    "a dictionary": lambda: arrow(batch(seconds=pa.array([1.0] * ROWS, pa.float32()).dictionary_encode())),
    "values without values": lambda: arrow(
        batch(value=pa.array([VALUES[0].tolist(), None, VALUES[2].tolist()], pa.list_(pa.float32(), 4)))
    ),
    "negative times": lambda: arrow(batch(seconds=pa.array([1, -1, 1], pa.float32()))),
    "two batches": lambda: arrow(batch(), batch()),
    "zstd": lambda: arrow(batch(), compression="zstd"),
    "text": lambda: b"hello",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_shard_that_is_not_what_the_writer_writes_counts_as_absent(store, opened, kind, capsys):
    path = put(store.folder, HOSTILE[kind]())
    again = opened()
    assert again.missing(KEYS) == KEYS[:5]
    assert np.array_equal(again.read(KEYS[5:]), VALUES[5:])
    assert again.seconds_for(KEYS) == 1.0
    assert (path.exists(), path.with_suffix(".damaged").exists()) == (False, True)
    assert f"{path} is damaged. It is kept as" in capsys.readouterr().err
    fill(again, 0, 1, 2)
    assert opened().missing(KEYS) == KEYS[3:5]


@pytest.mark.parametrize(("start", "stop"), [(1, 49), (10**14, 10**14 + 48), (48, 0)])
def test_a_name_that_says_wrongly_where_values_lie_gives_no_wrong_value(store, opened, start, stop):
    put(store.folder, arrow(batch()), start, stop)
    again = opened()
    assert again.missing(KEYS) == KEYS[:5]


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path.name)])
def test_what_is_no_file_and_has_the_name_of_a_shard_counts_as_absent(store, opened, make):
    make(store.folder / f"{'0' * 16}-8-56-{'0' * 16}.arrow")
    again = opened()
    assert again.missing(KEYS) == KEYS[:5]
    fill(again, 0)
    overview.verify(store.folder.parent, None)
    assert len(shards(again)) in (2, 3)
