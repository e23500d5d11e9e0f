"""The reference: what a model in production was trained on, kept beside it so that later photos can be compared.

    models/production/versions/<sha256 of the model>.parquet

One row per used photo of the manifest, without its pixels; for an evenly spaced sample also the pooled features. Where
the model comes from a base, the file's metadata identify the photos that the base saw and that are gone.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from regraft.core.addresses import shown_path
from regraft.core.errors import Damaged, InvalidData
from regraft.core.files import DAMAGE
from regraft.core.sealed import read_table, write_table
from regraft.photos.groups import hashed_given_groups
from regraft.photos.left_out import GIVEN, HASH

if TYPE_CHECKING:
    from regraft.features.drift import Comparison
    from regraft.features.table import Features

COLUMNS = ("digest", "label", "split", "width", "height", "brightness", "contrast", "sharpness", "entropy")
RECOGNISED_BY = (HASH, GIVEN)  # identify a photo that was saved anew, or another one of the same patient
_SAMPLE = 2000  # photos whose features are kept; at 1,280 numbers each that is 10 MB
_MOST_NEW = 2000  # new photos that are compared; of more, evenly spaced ones say enough


@dataclass(frozen=True, slots=True)
class Seen:
    """What identifies the photos that a model was trained on, or chosen."""

    digests: frozenset[str] = frozenset()
    hashes: frozenset[str] = frozenset()  # perceptual ones
    given: frozenset[str] = frozenset()  # SHA-256 of the groups that a person gave them

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Seen":
        """Take the columns `digest` and, where they are known, `RECOGNISED_BY`."""
        others = [frozenset(rows[name].dropna().tolist()) if name in rows else frozenset() for name in RECOGNISED_BY]
        return cls(frozenset(rows.digest.tolist()), *others)

    def __or__(self, other: "Seen") -> "Seen":
        """Unite both."""
        return Seen(*(getattr(self, each.name) | getattr(other, each.name) for each in fields(Seen)))


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model was trained on."""

    # COLUMNS and those of RECOGNISED_BY that are known, and `sampled`: whether the features are kept; ordered by digest
    rows: pd.DataFrame
    features: np.ndarray  # float32, shape (number of sampled rows, dim): those of view 0, in the order of the rows
    namespace: str  # of the store that the features come from; features of another one cannot be compared with them
    base_saw: Seen = field(default_factory=Seen)  # other photos that the model was trained on, or chosen

    def seen(self) -> Seen:
        """Return all photos that the model was trained on, or chosen."""
        return Seen.of(self.rows[self.rows.split.isin(("train", "val"))]) | self.base_saw

    @property
    def lacking(self) -> str:
        """A sentence on photos of the sample whose features were not there; empty if all were."""
        wanted = min(_SAMPLE, len(self.rows))
        missing = wanted - len(self.features)
        return f"Of {missing:,} of {wanted:,} sampled photos the features were not in the store." if missing else ""


def build_reference(
    manifest: pd.DataFrame, features: "Features", base_saw: pd.DataFrame | None = None, *, may_lack: bool = False
) -> Reference:
    """Return the used photos of a manifest with the features of a sample of them.

    Args:
        manifest: from `build_manifest`.
        features: that the model was trained on. A photo that is not among them joined since, and is left out. Their
            splits are those that were used; the manifest has only those that the user gave.
        base_saw: photos that the base of the model was trained on, or chosen, as its record has them.
        may_lack: whether features of the sample may be missing in the store: `Reference.lacking` says how many.

    Raises:
        RegraftError: the features lie in a store, and some that must be there are not.
    """
    position = {features.digests[row]: row for row in np.flatnonzero(features.views == 0).tolist()}
    used = manifest[manifest.verdict == "use"]
    used = used[[digest in position for digest in used.digest.tolist()]]
    used = used.assign(split=[str(features.splits[position[digest]]) for digest in used.digest.tolist()])
    named = hashed_given_groups(used)
    used = used.assign(**{GIVEN: named}) if named.notna().any() else used.drop(columns=GIVEN, errors="ignore")
    rows = used[_columns_of(used)].sort_values(["digest", "label"]).reset_index(drop=True)
    # Ordered by digest, evenly spaced rows are as good as drawn at random.
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).round().astype(int))
    kept = np.array([position[digest] for digest in rows.digest.to_numpy()[chosen]], int)
    values, present = features.read_present(kept) if may_lack else (features.read(kept), np.arange(len(kept)))
    rows["sampled"] = np.isin(np.arange(len(rows)), chosen[present])
    reference = Reference(rows, values, features.namespace)
    if base_saw is None:
        return reference
    others = base_saw[~base_saw.digest.isin(reference.seen().digests)]
    return replace(reference, base_saw=Seen.of(others))


def _columns_of(rows: pd.DataFrame) -> list[str]:
    return [*COLUMNS, *(name for name in RECOGNISED_BY if name in rows)]


def write_reference(path: Path, reference: Reference) -> None:
    """Write a reference as Parquet; its column `feature` is null where the features are not kept."""
    rows, values = reference.rows, pa.array(reference.features.reshape(-1))
    # Lists of any length: those of a fixed one take their room even where they are null, 330 MB for 64,000 photos.
    ends = np.cumsum(rows.sampled.to_numpy(), dtype=np.int32) * reference.features.shape[1]
    feature = pa.ListArray.from_arrays(
        np.concatenate([[0], ends]).astype(np.int32), values, mask=pa.array(~rows.sampled.to_numpy())
    )
    table = pa.Table.from_pandas(rows[_columns_of(rows)], preserve_index=False).append_column("feature", feature)
    saw = {name: sorted(values) for name, values in asdict(reference.base_saw).items()}
    facts = {"namespace": reference.namespace, "base_saw": json.dumps(saw)}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **facts})
    write_table(path, table)


def read_reference(path: Path) -> Reference:
    """Return what `write_reference` wrote.

    Raises:
        InvalidData: the file is damaged, or is none.
    """
    try:
        table = read_table(path)
        feature = table.column("feature").combine_chunks()
        values, count = feature.flatten().to_numpy(zero_copy_only=False), len(feature) - feature.null_count
        features = values.reshape(count, len(values) // max(1, count))
        rows = table.select([*COLUMNS, *(name for name in RECOGNISED_BY if name in table.column_names)]).to_pandas()
        rows = rows.assign(sampled=feature.is_valid().to_numpy(zero_copy_only=False))
        metadata = table.schema.metadata
        saw = json.loads(metadata[b"base_saw"])
        base_saw = Seen(**{name: frozenset(map(str, values)) for name, values in saw.items()})
        return Reference(rows, features, metadata[b"namespace"].decode(), base_saw)
    except (Damaged, *DAMAGE) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidData(
            f"{shown_path(path)} is damaged: it should hold what the model in production was trained on ({reason}). "
            f"Restore it from a backup, or remove it; the next model that is promoted brings its own."
        ) from None


def compared_features(
    found: tuple[Reference | None, str],
    against: Literal["production", "anchor"],
    features: "Features",
    groups: Mapping[str, str],
) -> "Comparison":
    """Return the features of what a model was trained on, and of what is new since, one photo per group.

    Args:
        found: from `Records.find_reference` or `Records.anchor_reference`.
        against: which of the two.
        features: of the data set.
        groups: of today's photos by their digest. A photo that is gone is a group of its own.
    """
    from regraft.features.drift import Comparison, Sample

    reference, words = found
    if reference is None:
        return Comparison(against, words, None)
    if reference.namespace != features.namespace:
        return Comparison(against, "That model has another backbone: its features cannot be compared with these.", None)
    known = np.array([groups.get(digest, digest) for digest in reference.rows.digest.tolist()], object)
    sampled = reference.rows.sampled.to_numpy()
    first = _first_of_each(known[sampled])
    photos = np.flatnonzero(features.views == 0)
    of_photos = np.array([groups[features.digests[row]] for row in photos.tolist()], object)
    new, known_groups = _first_of_each(of_photos), set(known.tolist())
    new = photos[[row for row in new.tolist() if of_photos[row] not in known_groups]]
    new = new[np.linspace(0, len(new) - 1, min(len(new), _MOST_NEW)).round().astype(int)]
    samples = (
        Sample(reference.features[first], reference.rows.label.to_numpy(str)[sampled][first]),
        Sample(features.read(new), np.array(features.class_names)[features.class_indices[new]]),
    )
    return Comparison(against, words, samples)


def _first_of_each(groups: np.ndarray) -> np.ndarray:
    """Positions of the first photo of each group, in order."""
    return np.sort(np.unique(groups, return_index=True)[1])
