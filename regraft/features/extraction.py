"""From photos to cached features: every view of an image goes through the frozen backbone once in its life."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from regraft.backbones.trunk import Trunk
from regraft.cluster.connection import Cluster
from regraft.core.config import Machine
from regraft.core.errors import RegraftError
from regraft.core.files import check_room
from regraft.features.forward_passes import FeatureStore, ForwardPasses, Work
from regraft.features.on_cluster import compute_on_cluster
from regraft.features.recomputing import Recomputing, find_lost_activations
from regraft.photos.dataset import Dataset
from regraft.photos.views import Views
from regraft.store.shards import Key

# Activations at the cut that are needed beside the pooled features: none; those of train and val images; or the same,
# each row verified, because the caller reads them all next.
Activations = Literal["none", "stored", "verified"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The cost of an extraction, and the cost that the store saved."""

    images: int  # different image files
    views: int  # views of a training image in the store, the centre square among them
    rows: int  # views of all images together
    from_store: int  # rows that were there already
    computed: int  # rows that cost a forward pass now
    seconds: float  # spent on computing them: decoding, resizing, forward passes
    images_per_second: float | None  # computed / seconds
    seconds_saved: float  # cost of the rows from the store when they were computed
    store_bytes: int  # size of the features and activations in the store
    engine: str

    def as_report(self) -> dict[str, object]:
        """Return the receipt as JSON-able values, times rounded to a millisecond."""
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Extractor:
    """Runs views of photos through the frozen backbone, each once in its life; the store holds the outputs."""

    views: Views  # which views an image has, and how they are drawn
    trunk: Trunk
    store: FeatureStore
    machine: Machine  # the section of params.yaml: threads, and the batch where one thread makes all forward passes
    cluster: Cluster | None = None  # who computes what is missing; None: this process

    @property
    def namespace(self) -> str:
        """Name of the part of the store that the pooled features lie in."""
        return self.store.features.folder.name

    @property
    def feature_dim(self) -> int:
        """Numbers of a pooled feature."""
        return self.trunk.feature_dim

    @property
    def augmented_views(self) -> int:
        """Views of a training image beside its centre square."""
        return self.views.count

    def read_features(self, sources: Sequence[str], view: int) -> np.ndarray:
        """Return one view's pooled features of some images: float32, shape (len(sources), feature_dim)."""
        return self.store.features.read([self.views.key(source, view) for source in sources])

    def checksums(self, sources: Sequence[str], view: int) -> np.ndarray:
        """Return the checksums of the same rows, without reading any: uint64, shape (len(sources),)."""
        return self.store.features.checksums([self.views.key(source, view) for source in sources])

    def keys(self, dataset: Dataset) -> list[Key]:
        """Return the store's keys of all views of a data set, once each."""
        return list(dict.fromkeys(self._keys(self._needed(dataset, "none"), "views")))

    def missing(self, dataset: Dataset, *, activations: Activations) -> set[str]:
        """Return the digests of the images of which the store lacks a row."""
        needed = self._needed(dataset, activations)
        return {work.photo.digest for work in self._missing(needed, verify_activations=activations == "verified")}

    def lost_activations(self, dataset: Dataset, activations_of: Collection[str] | None) -> Recomputing | None:
        """Return which activations `fill_store` computes although the features of the same views are there."""
        keys = list(self._keys(self._needed(dataset, "stored", activations_of), "cut_views"))
        return find_lost_activations(self.store.features, self.store.activations, keys)

    def fill_store(
        self,
        dataset: Dataset,
        *,
        activations: Activations,
        activations_of: Collection[str] | None = None,
        on_progress: Callable[[int, int], None],
    ) -> Receipt:
        """Compute what the store does not hold: one forward pass per new view, none for a view that is there.

        Args:
            dataset: the images that are needed.
            activations: see `Activations`; features are always verified, and test images never need activations.
            activations_of: digests of the images that need them; None: all of train and val.
            on_progress: called with the number of views computed and to compute.
        """
        needed = self._needed(dataset, activations, activations_of)
        missing = self._missing(needed, verify_activations=activations == "verified")
        rows, computed = (sum(len(work.views) for work in part) for part in (needed, missing))
        absent = set(self._keys(missing, "views"))
        present = [key for key in self._keys(needed, "views") if key not in absent]
        seconds_saved = self.store.features.seconds_for(present)
        start = time.perf_counter()
        if missing:
            self._compute(dataset, missing, on_progress)
            if self.cluster:
                self._look_again(needed, verify_activations=activations == "verified")
        seconds = time.perf_counter() - start if missing else 0.0
        return Receipt(
            images=len(needed),
            views=self.views.count + 1,
            rows=rows,
            from_store=rows - computed,
            computed=computed,
            seconds=seconds,
            images_per_second=computed / seconds if missing else None,
            seconds_saved=seconds_saved,
            store_bytes=self.store.stored_bytes,
            engine=self.trunk.engine,
        )

    def _needed(
        self, dataset: Dataset, activations: Activations, activations_of: Collection[str] | None = None
    ) -> list[Work]:
        """Every different image once, as if nothing were in the store; a file in two splits has what either needs."""
        needed: dict[str, Work] = {}
        for photo in dataset.photos():
            numbers = list(self.views.of(photo.split))
            is_wanted = activations_of is None or photo.digest in activations_of
            cut_views = numbers if activations != "none" and photo.split != "test" and is_wanted else []
            if before := needed.get(photo.digest):
                numbers, cut_views = max(numbers, before.views, key=len), max(cut_views, before.cut_views, key=len)
            needed[photo.digest] = Work(photo, numbers, cut_views)
        return list(needed.values())

    def _missing(self, needed: list[Work], *, verify_activations: bool) -> list[Work]:
        """Return the part of it that the store lacks."""
        no_features = set(self.store.features.missing(self._keys(needed, "views")))
        no_activations = set(self.store.activations.missing(self._keys(needed, "cut_views"), verify=verify_activations))
        if not no_features and not no_activations:
            return []
        missing = []
        for work in needed:
            source = work.photo.source
            cut_views = [view for view in work.cut_views if self.views.key(source, view) in no_activations]
            numbers = [v for v in work.views if v in cut_views or self.views.key(source, v) in no_features]
            if numbers:
                missing.append(Work(work.photo, numbers, cut_views))
        return missing

    def _keys(self, needed: list[Work], part: Literal["views", "cut_views"]) -> Iterator[Key]:
        return (key for work in needed for key in self.views.keys(work.photo.source, getattr(work, part)))

    def _compute(self, dataset: Dataset, missing: list[Work], on_progress: Callable[[int, int], None]) -> None:
        """Compute and store what is missing, here or on a cluster."""
        self._check_room(missing)
        passes = ForwardPasses(self.views, self.trunk, self.store, self.machine)
        if self.cluster is None:
            passes.compute(dataset, missing, on_progress)
        else:
            compute_on_cluster(self.cluster, passes, dataset, missing, on_progress)

    def _look_again(self, needed: list[Work], *, verify_activations: bool) -> None:
        """See what workers have written; RegraftError if some of it is not there."""
        self.store.features.refresh()
        self.store.activations.refresh()
        if absent := self._missing(needed, verify_activations=verify_activations):
            raise RegraftError(
                f"Workers have computed what was missing, but of {len(absent):,} photos it is not in the store, or "
                "damaged. Run again: only that is computed."
            )

    def _check_room(self, missing: list[Work]) -> None:
        parts = {"views": self.store.features, "cut_views": self.store.activations}
        size = sum(store.row_bytes * len(getattr(work, part)) for part, store in parts.items() for work in missing)
        check_room(self.store.features.folder, size, f"features of {len(missing):,} photos")
