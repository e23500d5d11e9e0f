"""features.arrow: the pooled features that heads are trained on, in one file that is read row by row."""

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from regraft.files import reading
from regraft.photos.dataset import Dataset
from regraft.sealed import check_seal, sealing
from regraft.store.columns import KEY_BYTES

_WRITE_ROWS = 1024  # in memory at a time


@dataclass(frozen=True, slots=True)
class Features:
    """What features.arrow holds. The features themselves stay in the file until they are read."""

    digests: list[str]
    views: np.ndarray  # int16, (n,)
    splits: np.ndarray  # str, (n,)
    class_indices: np.ndarray  # int32, (n,)
    class_names: list[str]
    namespace: str  # of the store they come from: features of two namespaces cannot be compared
    dim: int  # of a feature
    file: FileIO
    offsets: np.ndarray  # int64, (n,): where in the file each row begins
    keys: np.ndarray | None = None  # of the store's rows, as from `as_array`, if they were asked for and are known

    def positions(self, split: str) -> np.ndarray:
        """Return the positions of the rows of one split, in order."""
        return np.flatnonzero(self.splits == split)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return the features at `positions`: float32, shape (len(positions), dim).

        They are read and not mapped: pages of a mapping count as memory of the process, and would be all of the file
        after one epoch.
        """
        rows = np.empty((len(positions), self.dim), np.float32)
        offsets, size = self.offsets[positions], self.dim * rows.itemsize
        starts = [
            *np.flatnonzero(np.diff(offsets, prepend=-2 * size) != size).tolist(),
            len(rows),
        ]  # of rows side by side
        for start, end in itertools.pairwise(starts):
            if os.preadv(self.file.fileno(), [rows[start:end].data], int(offsets[start])) != (end - start) * size:
                raise OSError(f"{self.file.name} is shorter than when it was opened. Run again.")
        return rows

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return features and class indices of one split."""
        chosen = self.positions(split)
        return self.read(chosen), self.class_indices[chosen]


class Keyed(Protocol):
    """What names the rows of the store: `regraft.photos.views.Views`."""

    def key(self, source: str, view: int) -> bytes: ...


class FeatureSource(Protocol):
    """Where `write_features` reads pooled features from: `regraft.features.extraction.Extractor`."""

    @property
    def namespace(self) -> str: ...
    @property
    def feature_dim(self) -> int: ...
    @property
    def augmented_views(self) -> int: ...
    @property
    def views(self) -> Keyed: ...
    def read_features(self, sources: Sequence[str], view: int) -> np.ndarray: ...


def write_features(path: Path, source: FeatureSource, dataset: Dataset) -> None:
    """Write the pooled features of every view of a data set as one Arrow IPC file, a thousand rows in memory at a time.

    View by view, and within a view in the order of the data set.
    """
    feature_dim = source.feature_dim
    schema = pa.schema(
        {
            "digest": pa.string(),
            "view": pa.int16(),
            "split": pa.string(),
            "class_index": pa.int32(),
            "key": pa.binary(KEY_BYTES),
            "feature": pa.list_(pa.float32(), feature_dim),
        },
        metadata={
            "class_names": json.dumps(dataset.class_names, ensure_ascii=False),
            "namespace": source.namespace,
        },
    )
    with sealing(path) as temporary, pa.OSFile(str(temporary), "ab") as sink, pa.ipc.new_file(sink, schema) as writer:
        for view, part in _parts(dataset, source.augmented_views):
            sources = dataset.with_rows(part).sources()
            values = source.read_features(sources, view)
            columns = [
                pa.array(part.digest, pa.string()),
                pa.array(np.full(len(part), view, np.int16)),
                pa.array(part.split, pa.string()),
                pa.array(part.class_index.to_numpy()),
                pa.array([source.views.key(each, view) for each in sources], pa.binary(KEY_BYTES)),
                pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), feature_dim),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _parts(dataset: Dataset, augmented_views: int) -> Iterator[tuple[int, pd.DataFrame]]:
    """The rows that have a view, view by view, some at a time."""
    for view in range(augmented_views + 1):
        rows = dataset.rows if view == 0 else dataset.of("train").rows
        for start in range(0, len(rows), _WRITE_ROWS):
            yield view, rows[start : start + _WRITE_ROWS]


class OpenFile(FileIO):
    """Open as long as somebody holds the features: they are of one version, even if another takes the name."""

    def __del__(self) -> None:
        self.close()


def read_features(path: Path, *, with_keys: bool = False) -> Features:
    """Open what `write_features` wrote.

    Args:
        path: of the file.
        with_keys: whether to read of which rows of the store it was made; a file of a former version does not say it.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is damaged.
    """
    with reading(path, "features"):
        file = OpenFile(path)
        check_seal(file, path)
        return _opened(path, file, with_keys=with_keys)


def _opened(path: Path, file: OpenFile, *, with_keys: bool) -> Features:
    mapped = pa.memory_map(str(path))
    start = mapped.read_buffer(1).address  # of the file in memory; it began at 0
    reader = pa.ipc.open_file(mapped)
    names = ["digest", "view", "split", "class_index"]
    names += ["key"] if with_keys and "key" in reader.schema.names else []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    offsets, dim, metadata = [], reader.schema.field("feature").type.list_size, reader.schema.metadata or {}
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        for name, parts in columns.items():
            parts.append(batch.column(name).to_numpy(zero_copy_only=False))
        values = batch.column("feature").flatten().buffers()[1]
        offsets.append(values.address - start + np.arange(len(batch)) * dim * 4)
    return Features(
        digests=np.concatenate(columns["digest"]).tolist(),
        views=np.concatenate(columns["view"]),
        splits=np.concatenate(columns["split"]).astype(str),
        class_indices=np.concatenate(columns["class_index"]),
        class_names=json.loads(metadata[b"class_names"]),
        namespace=metadata[b"namespace"].decode(),
        dim=dim,
        file=file,
        offsets=np.concatenate(offsets),
        keys=np.concatenate(columns["key"]).astype(f"S{KEY_BYTES}") if "key" in columns else None,
    )
