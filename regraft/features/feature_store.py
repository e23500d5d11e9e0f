"""The two parts of the store that one forward pass of the frozen backbone fills."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.backbones.catalogue import Backbone
from regraft.backbones.trunk import Trunk, load_trunk
from regraft.store.joining import open_shared
from regraft.store.located import LocatedRows
from regraft.store.namespace import Namespace, open_namespace


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """The two parts of the store that a forward pass fills."""

    features: Namespace  # pooled, float32, (feature_dim,)
    activations: Namespace  # at the cut, float16, (height, width, channels)

    def flush(self) -> None:
        """Write what both still hold in memory."""
        try:
            self.activations.flush()
        finally:
            self.features.flush()  # also when the first part was written here and could not be sent

    def find_rows(self, _: str, keys: np.ndarray, checksums: np.ndarray) -> LocatedRows:
        """Find rows that a features file names, which was just written: see `regraft.features.table.read_features`."""
        return LocatedRows(self.features, keys, checksums, advice="Run the same command again.")

    @property
    def stored_bytes(self) -> int:
        """Bytes on the disk."""
        return self.features.stored_bytes + self.activations.stored_bytes


def load_stored_trunk(backbone: Backbone, root: Path, *, shared: str | None) -> Trunk:
    """Return the frozen backbone, from a graph that lies in the store, here or in the shared one, or is made now.

    Args:
        backbone: from `choose_backbone`.
        root: the store's folder.
        shared: the shared root, or None.
    """
    return load_trunk(backbone, root / "graphs", shared=open_shared(root, shared, may_create=True) if shared else None)


def open_feature_store(root: Path, trunk: Trunk, *, shared: str | None = None, mirror: bool = False) -> FeatureStore:
    """Open the namespaces of this backbone and this engine, here and in the shared store.

    How a photo becomes a view is part of the rows' keys.

    Args:
        root: the store's folder.
        trunk: from `load_stored_trunk`.
        shared: the shared root, or None.
        mirror: whether to fetch all that the shared store has in them, and not what is needed only.
    """
    facts = {"graph": trunk.digest, "engine": trunk.engine}
    store = FeatureStore(
        open_namespace(root, "features", facts, shape=(trunk.feature_dim,), dtype="float32", shared=shared),
        open_namespace(root, "activations", facts, shape=trunk.activation_shape, dtype="float16", shared=shared),
    )
    if mirror:
        store.features.mirror()
        store.activations.mirror()
    return store
