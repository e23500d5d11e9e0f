"""Views of photos go through the frozen backbone, and its outputs into the two namespaces of the store."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from regraft.backbones.catalogue import Backbone
from regraft.backbones.trunk import Trunk, load_trunk
from regraft.core.config import Machine
from regraft.core.errors import RegraftError, printable
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.images import Threads
from regraft.photos.views import Views
from regraft.store.joining import open_shared
from regraft.store.located import LocatedRows
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.shards import Key

_FLUSH_ROWS = 1024  # a kill loses at most the work on so many


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """The two namespaces that a forward pass fills."""

    features: Namespace  # pooled, float32, (feature_dim,)
    activations: Namespace  # at the cut, float16, (height, width, channels)

    def flush(self) -> None:
        """Write the rows that are still in memory."""
        try:
            self.activations.flush()
        finally:
            self.features.flush()  # also when the first part was written here and could not be sent

    def find_rows(self, _: str, keys: np.ndarray, checksums: np.ndarray) -> LocatedRows:
        """Find rows of a features file that was just written: see `regraft.features.table.read_features`."""
        return LocatedRows(self.features, keys, checksums, advice="Run the same command again.")

    @property
    def stored_bytes(self) -> int:
        """Bytes on the disk."""
        return self.features.stored_bytes + self.activations.stored_bytes


def load_stored_trunk(backbone: Backbone, root: Path, *, shared: str | None) -> Trunk:
    """Return the frozen backbone, whose graph is in the store `root`, in the shared store, or is made now."""
    return load_trunk(backbone, root / "graphs", shared=open_shared(root, shared, may_create=True) if shared else None)


def open_feature_store(root: Path, trunk: Trunk, *, shared: str | None = None) -> FeatureStore:
    """Open the namespaces of this backbone and this engine; how a photo becomes a view is part of the rows' keys.

    Args:
        root: the store's folder.
        trunk: from `load_stored_trunk`.
        shared: address of the shared store, or None.
    """
    facts = {"graph": trunk.digest, "engine": trunk.engine}
    return FeatureStore(
        open_namespace(root, "features", facts, shape=(trunk.feature_dim,), dtype="float32", shared=shared),
        open_namespace(root, "activations", facts, shape=trunk.activation_shape, dtype="float16", shared=shared),
    )


@dataclass(frozen=True, slots=True)
class Work:
    """The views of one image that are needed, and those among them whose activations are needed too."""

    photo: Photo
    views: list[int]
    cut_views: list[int]


@dataclass(frozen=True, slots=True)
class _Result:
    """The outputs for one image."""

    keys: list[Key]
    features: np.ndarray  # float32, (views, feature_dim)
    cut_keys: list[Key]
    activations: np.ndarray  # float16, (cut_views, *activation_shape)


@dataclass(frozen=True, slots=True)
class ForwardPasses:
    """Decodes photos, draws their views, runs the frozen backbone and stores its outputs."""

    views: Views
    trunk: Trunk
    store: FeatureStore
    machine: Machine  # the section of params.yaml: threads, and the batch where one thread makes all forward passes

    def compute(self, dataset: Dataset, works: Sequence[Work], on_progress: Callable[[int, int], None]) -> None:
        """Compute and store, about a thousand views at a time."""
        total, done, unwritten = sum(len(work.views) for work in works), 0, 0
        last = time.perf_counter()
        on_progress(0, total)
        try:
            for result in self._results(dataset, works):
                now = time.perf_counter()
                self.store.features.append(result.keys, result.features, seconds=now - last)
                if result.cut_keys:
                    self.store.activations.append(result.cut_keys, result.activations, seconds=now - last)
                last = now
                done += len(result.keys)
                unwritten += len(result.keys)
                if unwritten >= _FLUSH_ROWS:
                    self.store.flush()
                    unwritten = 0
                on_progress(done, total)
        finally:
            # Also after an error: computed rows are paid for.
            self.store.flush()

    def _results(self, dataset: Dataset, works: Sequence[Work]) -> Iterator[_Result]:
        """Decode, draw and run; a photo is decoded once for all its views, and only a few dozen are in memory."""

        def draw(work: Work) -> np.ndarray:
            with dataset.opened(work.photo, shorter_side=self.views.shorter_side) as rgb:
                return self.views.draw(rgb, work.photo.digest, work.views)

        threads = Threads(self.machine.workers)
        if self.trunk.runner.is_parallel:
            for results in threads.map(lambda work: self._run([work], draw(work)), works):
                yield from results
        else:
            drawn = threads.map(lambda work: (work, draw(work)), works)
            while batch := list(islice(drawn, self.machine.batch_size)):
                yield from self._run([work for work, _ in batch], np.concatenate([pixels for _, pixels in batch]))

    def _run(self, batch: list[Work], pixels: np.ndarray) -> list[_Result]:
        """One pass of several images; `pixels` holds their views one after the other."""
        features, activations = self.trunk.run(pixels, with_activations=any(work.cut_views for work in batch))
        results, start = [], 0
        for work in batch:
            stop = start + len(work.views)
            keys = self.views.keys(work.photo.source, work.views)
            positions = [work.views.index(view) for view in work.cut_views]
            values = _as_stored(activations[start:stop][positions]) if activations is not None else np.empty(0)
            _check_finite(work.photo, features[start:stop], values)
            results.append(_Result(keys, features[start:stop], [keys[position] for position in positions], values))
            start = stop
        return results


def _as_stored(activations: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # `_check_finite` raises
        return activations.astype(np.float16)


def _check_finite(photo: Photo, features: np.ndarray, activations: np.ndarray) -> None:
    """Refuse values that would stay in the store and spoil every later training."""
    name = f"{printable(photo.path)} (SHA-256 {photo.digest[:12]})"
    if not np.isfinite(features).all():
        raise RegraftError(
            f"The backbone's features of {name} are not finite numbers, so nothing of this photo is stored. The "
            "backbone's weights or its preprocessing are at fault: choose others under backbone in params.yaml."
        )
    if not np.isfinite(activations).all():
        raise RegraftError(
            f"The activations of {name} at the layer backbone.cut are larger than float16 holds (65,504), which the "
            "store keeps them in, so nothing of this photo is stored. Choose another layer as backbone.cut in "
            "params.yaml, or set fine_tune.layers to all, which trains from pixels and stores none."
        )
