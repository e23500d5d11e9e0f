"""The two parts of the store that one forward pass of the frozen backbone fills."""

from dataclasses import dataclass
from pathlib import Path

from regraft.backbones.trunk import Trunk
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

    @property
    def stored_bytes(self) -> int:
        """Bytes on the disk."""
        return self.features.stored_bytes + self.activations.stored_bytes


def open_feature_store(root: Path, trunk: Trunk, *, shared: str | None = None) -> FeatureStore:
    """Open the namespaces of this backbone and this engine, here and in the shared store.

    How a photo becomes a view is part of the rows' keys.
    """
    facts = {"graph": trunk.digest, "engine": trunk.engine}
    return FeatureStore(
        open_namespace(root, "features", facts, shape=(trunk.feature_dim,), dtype="float32", shared=shared),
        open_namespace(root, "activations", facts, shape=trunk.activation_shape, dtype="float16", shared=shared),
    )
