"""The reference: what the model in production was trained on, kept beside it so that later data can be compared.

    models/production/versions/<sha256 of the model>.parquet

One row per used photo of the manifest, without its pixels; of an evenly spaced sample also the pooled features. Where
the model comes from a base, that has seen photos which are gone by now: their digests stand in the file's metadata.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from regraft.addresses import shown_path
from regraft.errors import Damaged, InvalidData
from regraft.files import DAMAGE
from regraft.sealed import read_table, write_table

if TYPE_CHECKING:
    from regraft.features.table import Features

COLUMNS = ("digest", "label", "split", "width", "height", "brightness", "contrast", "sharpness", "entropy")
_SAMPLE = 2000  # photos whose features are kept; at 1,280 numbers each that is 10 MB


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model was trained on."""

    rows: pd.DataFrame  # COLUMNS, as in the manifest, and `sampled`: whether the features are kept; ordered by digest
    features: np.ndarray  # float32, shape (number of sampled rows, dim): those of view 0, in the order of the rows
    namespace: str  # of the store that the features come from; features of another one cannot be compared with them
    also_seen: frozenset[str] = frozenset()  # digests of other photos that the model was trained on, or chosen

    def seen(self) -> list[str]:
        """Return the digests of all photos that the model was trained on, or chosen."""
        return [*self.rows.digest[self.rows.split.isin(("train", "val"))].tolist(), *sorted(self.also_seen)]

    @property
    def lacking(self) -> str:
        """A sentence on photos of the sample whose features were not there; empty if all were."""
        wanted = min(_SAMPLE, len(self.rows))
        missing = wanted - len(self.features)
        return f"Of {missing:,} of {wanted:,} sampled photos the features were not in the store." if missing else ""


def build_reference(
    manifest: pd.DataFrame, features: "Features", base_saw: Collection[str] = (), *, may_lack: bool = False
) -> Reference:
    """Return the used photos of a manifest with the features of a sample of them.

    Args:
        manifest: from `build_manifest`.
        features: that the model was trained on. A photo that is not among them joined since, and is left out. Their
            splits are those that were used; the manifest has only those that the user gave.
        base_saw: digests of the photos that the base of the model was trained on, or chosen.
        may_lack: whether features of the sample may be missing in the store: `Reference.lacking` says how many.

    Raises:
        RegraftError: the features lie in a store, and some that must be there are not.
    """
    position = {features.digests[row]: row for row in np.flatnonzero(features.views == 0).tolist()}
    used = manifest[manifest.verdict == "use"]
    used = used[[digest in position for digest in used.digest.tolist()]]
    used = used.assign(split=[str(features.splits[position[digest]]) for digest in used.digest.tolist()])
    rows = used[list(COLUMNS)].sort_values(["digest", "label"]).reset_index(drop=True)
    # Ordered by digest, evenly spaced rows are as good as drawn at random.
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).round().astype(int))
    kept = np.array([position[digest] for digest in rows.digest.to_numpy()[chosen]], int)
    values, present = features.read_present(kept) if may_lack else (features.read(kept), np.arange(len(kept)))
    rows["sampled"] = np.isin(np.arange(len(rows)), chosen[present])
    reference = Reference(rows, values, features.namespace)
    return replace(reference, also_seen=frozenset(base_saw) - set(reference.seen()))


def write_reference(path: Path, reference: Reference) -> None:
    """Write a reference as Parquet; its column `feature` is null where the features are not kept."""
    rows, values = reference.rows, pa.array(reference.features.reshape(-1))
    # Lists of any length: those of a fixed one take their room even where they are null, 330 MB for 64,000 photos.
    ends = np.cumsum(rows.sampled.to_numpy(), dtype=np.int32) * reference.features.shape[1]
    feature = pa.ListArray.from_arrays(
        np.concatenate([[0], ends]).astype(np.int32), values, mask=pa.array(~rows.sampled.to_numpy())
    )
    table = pa.Table.from_pandas(rows[list(COLUMNS)], preserve_index=False).append_column("feature", feature)
    facts = {"namespace": reference.namespace, "also_seen": json.dumps(sorted(reference.also_seen))}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **facts})
    write_table(path, table)


def read_reference(path: Path) -> Reference:
    """Return what `write_reference` wrote.

    Raises:
        InvalidData: the file is damaged, or is none.
    """
    try:
        table = read_table(path, may_lack_seal=True)  # those of models from before files were sealed
        feature = table.column("feature").combine_chunks()
        values, count = feature.flatten().to_numpy(zero_copy_only=False), len(feature) - feature.null_count
        features = values.reshape(count, len(values) // max(1, count))
        rows = table.select(COLUMNS).to_pandas().assign(sampled=feature.is_valid().to_numpy(zero_copy_only=False))
        metadata = table.schema.metadata
        also_seen = frozenset(map(str, json.loads(metadata.get(b"also_seen", b"[]"))))  # older files have none
        return Reference(rows, features, metadata[b"namespace"].decode(), also_seen)
    except (Damaged, *DAMAGE) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidData(
            f"{shown_path(path)} is damaged: it should hold what the model in production was trained on ({reason}). "
            f"Restore it from a backup, or remove it; the next model that is promoted brings its own."
        ) from None
