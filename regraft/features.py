"""features.arrow: the pooled features that heads are trained on, in one file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from regraft.dataset import Dataset
from regraft.files import replacing
from regraft.store import Namespace
from regraft.views import Views

_WRITE_ROWS = 1024  # in memory at a time


@dataclass(frozen=True, slots=True)
class Features:
    """What features.arrow holds, row by row."""

    digests: list[str]
    views: np.ndarray  # int16, (n,)
    splits: np.ndarray  # str, (n,)
    class_indices: np.ndarray  # int32, (n,)
    values: np.ndarray  # float32, (n, feature_dim)
    class_names: list[str]

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return features and class indices of one split."""
        chosen = self.splits == split
        return self.values[chosen], self.class_indices[chosen]


def write_features(path: Path, pooled: Namespace, dataset: Dataset, views: Views) -> None:
    """Write the pooled features of every view of a data set as one Arrow IPC file, a thousand rows in memory at a time.

    View by view, and within a view in the order of the data set.
    """
    feature_dim = pooled.shape[0]
    schema = pa.schema(
        {
            "digest": pa.string(),
            "view": pa.int16(),
            "split": pa.string(),
            "class_index": pa.int32(),
            "feature": pa.list_(pa.float32(), feature_dim),
        },
        metadata={"class_names": json.dumps(dataset.class_names, ensure_ascii=False)},
    )
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for view, part in _parts(dataset, views):
            values = pooled.read([views.key(digest, view) for digest in part.digest])
            columns = [
                pa.array(part.digest, pa.string()),
                pa.array(np.full(len(part), view, np.int16)),
                pa.array(part.split, pa.string()),
                pa.array(part.class_index.to_numpy()),
                pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), feature_dim),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _parts(dataset: Dataset, views: Views) -> Iterator[tuple[int, pd.DataFrame]]:
    """The rows that have a view, view by view, some at a time."""
    for view in range(views.count + 1):
        rows = dataset.rows if view == 0 else dataset.of("train").rows
        for start in range(0, len(rows), _WRITE_ROWS):
            yield view, rows[start : start + _WRITE_ROWS]


def read_features(path: Path) -> Features:
    """Return what `write_features` wrote."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
    values = table.column("feature").chunk(0).flatten().to_numpy().reshape(len(table), -1)
    return Features(
        digests=table.column("digest").to_pylist(),
        views=table.column("view").to_numpy(),
        splits=np.array(table.column("split").to_pylist()),
        class_indices=table.column("class_index").to_numpy(),
        values=values,
        class_names=json.loads((table.schema.metadata or {})[b"class_names"]),
    )
