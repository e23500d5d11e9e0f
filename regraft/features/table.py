"""features.arrow: the pooled features that heads are trained on, in one file that is read row by row.

Of few photos it holds the features themselves, and so needs no store. Of many it names rows of the store, and with each
the checksum that it must have: 81 bytes instead of 5 kB, of which every version would be kept.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, overload

import numpy as np
import pandas as pd
import pyarrow as pa

from regraft.core.files import reading
from regraft.core.sealed import check_seal, sealing
from regraft.photos.dataset import SPLITS, Dataset
from regraft.store.columns import KEY_BYTES

if TYPE_CHECKING:
    from regraft.features.extraction import Extractor

_WRITE_ROWS = 1024  # in memory at a time
_READ_BYTES = 2**28  # in one call; the kernel reads at most 2 GB
_DIGEST_BYTES = 32


class Rows(Protocol):
    """Where features are read from: `FileRows`, or `regraft.store.located.LocatedRows`."""

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return the features at `positions`: float32, shape (len(positions), dim)."""
        ...

    def read_present(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return those of the features at `positions` that are there, and which these are: int, (their number,)."""
        ...


class OpenFile(FileIO):
    """Open as long as the features are in use: they are of one version, even if another takes the name."""

    def __del__(self) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class FileRows:
    """Features that lie in the file itself."""

    file: FileIO
    offsets: np.ndarray  # int64, (n,): where in the file each row begins
    dim: int  # of a feature

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return the features at `positions`: float32, shape (len(positions), dim).

        They are read and not mapped: pages of a mapping count as memory of the process, and would be all of the file
        after one epoch.
        """
        rows = np.empty((len(positions), self.dim), np.float32)
        offsets, size = self.offsets[positions], self.dim * rows.itemsize
        is_new = np.diff(offsets, prepend=-2 * size) != size  # not side by side with the row before
        is_new[:: max(1, _READ_BYTES // size)] = True
        starts = [*np.flatnonzero(is_new).tolist(), len(rows)]
        for start, end in itertools.pairwise(starts):
            if os.preadv(self.file.fileno(), [rows[start:end].data], int(offsets[start])) != (end - start) * size:
                raise OSError(f"{self.file.name} is shorter than when it was opened. Run again.")
        return rows

    def read_present(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the features at `positions`, which are all there, and which these are."""
        return self.read(positions), np.arange(len(positions))


class Digests(Sequence[str]):
    """SHA-256 digests as texts of 64 hexadecimal digits, 32 bytes each in memory."""

    def __init__(self, contents: np.ndarray) -> None:
        """Take uint8, shape (n, 32)."""
        self._contents = contents

    def __len__(self) -> int:
        return len(self._contents)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [row.tobytes().hex() for row in self._contents[index]]
        return self._contents[index].tobytes().hex()

    def __iter__(self) -> Iterator[str]:
        return (row.tobytes().hex() for row in self._contents)


# Given the namespace of a store, and keys and checksums of its rows, it says where these are read from.
FindRows = Callable[[str, np.ndarray, np.ndarray], Rows]


@dataclass(frozen=True, slots=True)
class Features:
    """The contents of features.arrow. The features themselves are read when they are asked for."""

    digests: Sequence[str]
    views: np.ndarray  # int16, (n,)
    splits: np.ndarray  # str, (n,)
    class_indices: np.ndarray  # int32, (n,)
    class_names: list[str]
    namespace: str  # of the store they come from: features of two namespaces cannot be compared
    dim: int  # of a feature
    rows: Rows | None  # where they are read from; None: in a store that was not asked for
    keys: np.ndarray | None = None  # of the store's rows, as from `as_array`, if they were asked for and are known

    def positions(self, split: str) -> np.ndarray:
        """Return the positions of the rows of one split, in order."""
        return np.flatnonzero(self.splits == split)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return the features at `positions`: float32, shape (len(positions), dim).

        Raises:
            RegraftError: they lie in the store, and some are not there any more.
        """
        if self.rows is None:
            raise ValueError("The file names rows of the store: give `read_features` what finds them.")
        return self.rows.read(positions)

    def read_present(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return those of the features at `positions` that are there, none without a store, and which these are."""
        if self.rows is None:
            return np.empty((0, self.dim), np.float32), np.zeros(0, int)
        return self.rows.read_present(positions)

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return features and class indices of one split."""
        chosen = self.positions(split)
        return self.read(chosen), self.class_indices[chosen]


def write_features(path: Path, source: "Extractor", dataset: Dataset, *, is_named: bool = False) -> None:
    """Write the pooled features of every view of a data set as one Arrow IPC file, a thousand rows in memory at a time.

    View by view, and within a view in the order of the data set. Named features are rows of the store, and the checksum
    of each.
    """
    dim = source.feature_dim
    last = pa.field("checksum", pa.uint64()) if is_named else pa.field("feature", pa.list_(pa.float32(), dim))

    def values_of(sources: Sequence[str], view: int) -> pa.Array:
        if is_named:
            return pa.array(source.checksums(sources, view))
        return pa.FixedSizeListArray.from_arrays(pa.array(source.read_features(sources, view).reshape(-1)), dim)

    fields = {
        "digest": pa.binary(_DIGEST_BYTES),
        "view": pa.int16(),
        "split": pa.dictionary(pa.int8(), pa.string()),
        "class_index": pa.int32(),
        "key": pa.binary(KEY_BYTES),
    }
    metadata = {
        "class_names": json.dumps(dataset.class_names, ensure_ascii=False),
        "namespace": source.namespace,
        "dim": str(dim),
    }
    schema = pa.schema([*fields.items(), last], metadata=metadata)
    codes = {split: code for code, split in enumerate(SPLITS)}
    with sealing(path) as temporary, pa.OSFile(str(temporary), "ab") as sink, pa.ipc.new_file(sink, schema) as writer:
        for view, part in _parts(dataset, source.augmented_views):
            sources = dataset.with_rows(part).sources()
            columns = [
                pa.array([bytes.fromhex(digest) for digest in part.digest], fields["digest"]),
                pa.array(np.full(len(part), view, np.int16)),
                pa.DictionaryArray.from_arrays(pa.array(part.split.map(codes).to_numpy(np.int8)), list(SPLITS)),
                pa.array(part.class_index.to_numpy()),
                pa.array([source.views.key(each, view) for each in sources], fields["key"]),
                values_of(sources, view),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _parts(dataset: Dataset, augmented_views: int) -> Iterator[tuple[int, pd.DataFrame]]:
    """The rows that have a view, view by view, some at a time."""
    for view in range(augmented_views + 1):
        rows = dataset.rows if view == 0 else dataset.of("train").rows
        for start in range(0, len(rows), _WRITE_ROWS):
            yield view, rows[start : start + _WRITE_ROWS]


def read_features(path: Path, *, with_keys: bool = False, find_rows: FindRows | None = None) -> Features:
    """Open the file that `write_features` wrote.

    Args:
        path: of the file.
        with_keys: whether to read of which rows of the store it was made; a file of a former version does not say it.
        find_rows: called where the file names rows of a store; None where the features themselves are not asked for.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is damaged.
        RegraftError: from `find_rows`.
    """
    with reading(path, "features"):
        file = OpenFile(path)
        check_seal(file, path)
        features, checksums = _opened(path, file, with_keys=with_keys)
    if checksums is None or features.keys is None or find_rows is None:
        return features
    return replace(features, rows=find_rows(features.namespace, features.keys, checksums))


def _opened(path: Path, file: OpenFile, *, with_keys: bool) -> tuple[Features, np.ndarray | None]:
    """Return the contents of a file, and the checksums of rows where it only names them."""
    mapped = pa.memory_map(str(path))
    start = mapped.read_buffer(1).address  # of the file in memory; it began at 0
    reader = pa.ipc.open_file(mapped)
    names, metadata = reader.schema.names, reader.schema.metadata or {}
    is_copy, with_keys = "feature" in names, "key" in names and (with_keys or "feature" not in names)
    dim = reader.schema.field("feature").type.list_size if is_copy else int(metadata[b"dim"])
    wanted = ["digest", "view", "split", "class_index", *(["key"] if with_keys else [])]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in [*wanted, *([] if is_copy else ["checksum"])]}
    offsets = [np.empty(0, np.int64)]
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        for name, parts in columns.items():
            parts.append(_values_of(name, batch.column(name)))
        if is_copy:
            values = batch.column("feature").flatten().buffers()[1]
            offsets.append(values.address - start + np.arange(len(batch)) * dim * 4)
    found = {name: np.concatenate(parts) for name, parts in columns.items()}
    features = Features(
        digests=Digests(found["digest"]),
        views=found["view"],
        splits=found["split"],
        class_indices=found["class_index"],
        class_names=json.loads(metadata[b"class_names"]),
        namespace=metadata[b"namespace"].decode(),
        dim=dim,
        rows=FileRows(file, np.concatenate(offsets), dim) if is_copy else None,
        keys=found.get("key"),
    )
    return features, found.get("checksum")


def _values_of(name: str, column: pa.Array) -> np.ndarray:
    """Return a column of a batch as numbers, splits as texts, keys as from `as_array`, digests as (n, 32) bytes."""
    if name in ("digest", "key"):
        contents = np.frombuffer(b"".join(column.to_pylist()), np.uint8)
        return contents.reshape(-1, _DIGEST_BYTES) if name == "digest" else contents.view(f"S{KEY_BYTES}")
    values = column.to_numpy(zero_copy_only=False)
    return values.astype("U5") if name == "split" else values
