"""From photos to cached features: every view of an image goes through the frozen backbone once in its life."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Literal

import numpy as np

from regraft.backbones.trunk import Trunk
from regraft.config import Machine
from regraft.features.feature_store import FeatureStore
from regraft.files import check_room
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.images import Threads
from regraft.photos.views import Views
from regraft.store.shards import Key

# Which activations at the cut are wanted beside the pooled features: none; those of train and val images, in the store;
# or the same, every one of them verified, because the caller reads them all next.
Activations = Literal["none", "stored", "verified"]

_FLUSH_ROWS = 1024  # a kill loses at most the work on so many


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a run paid for and what it did not have to."""

    images: int  # different image files
    views: int  # views of a training image in the store, the centre square among them
    rows: int  # views of all images together
    from_store: int  # rows that were there already
    computed: int  # rows that cost a forward pass now
    seconds: float  # spent on computing them: decoding, resizing, forward passes
    images_per_second: float | None  # computed / seconds
    seconds_saved: float  # what the rows from the store took when they were computed
    store_bytes: int  # size of the features and activations in the store
    engine: str

    def as_report(self) -> dict[str, object]:
        """Return the receipt as JSON-able values, times rounded to a millisecond."""
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class _Work:
    """The views of one image that are needed, and those among them whose activations are needed too."""

    photo: Photo
    views: list[int]
    cut_views: list[int]


@dataclass(frozen=True, slots=True)
class _Result:
    """What came out for one image."""

    keys: list[Key]
    features: np.ndarray  # float32, (views, feature_dim)
    cut_keys: list[Key]
    activations: np.ndarray  # float16, (cut_views, *activation_shape)


@dataclass(frozen=True, slots=True)
class Extractor:
    """Runs views of photos through the frozen backbone, each once in its life; the store holds what came out.

    It is what `regraft.features.table.write_features` reads pooled features from.
    """

    views: Views  # which views an image has, and how they are drawn
    trunk: Trunk
    store: FeatureStore
    machine: Machine  # the section of params.yaml: threads, and the batch where one thread makes all forward passes

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

    def keys(self, dataset: Dataset) -> list[Key]:
        """Return the store's keys of all views of a data set, once each."""
        return list(dict.fromkeys(self._keys(self._needed(dataset, "none"), "views")))

    def missing(self, dataset: Dataset, *, activations: Activations) -> set[str]:
        """Return the digests of the images of which the store has not all that is needed."""
        needed = self._needed(dataset, activations)
        return {work.photo.digest for work in self._missing(needed, verify_activations=activations == "verified")}

    def fill_store(
        self, dataset: Dataset, *, activations: Activations, on_progress: Callable[[int, int], None]
    ) -> Receipt:
        """Compute what the store does not hold: one forward pass per new view, none for a view that is there.

        Args:
            dataset: the images that are needed.
            activations: see `Activations`; features are always verified, and test images never need activations.
            on_progress: called with the number of views computed and to compute.
        """
        needed = self._needed(dataset, activations)
        missing = self._missing(needed, verify_activations=activations == "verified")
        rows, computed = (sum(len(work.views) for work in part) for part in (needed, missing))
        absent = set(self._keys(missing, "views"))
        present = [key for key in self._keys(needed, "views") if key not in absent]
        seconds_saved = self.store.features.seconds_for(present)
        start = time.perf_counter()
        self._compute_missing(dataset, missing, on_progress)
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

    def _needed(self, dataset: Dataset, activations: Activations) -> list[_Work]:
        """Every different image once, as if nothing were in the store; a file in two splits has what either needs."""
        needed: dict[str, _Work] = {}
        for photo in dataset.photos():
            numbers = list(self.views.of(photo.split))
            cut_views = numbers if activations != "none" and photo.split != "test" else []
            if before := needed.get(photo.digest):
                numbers, cut_views = max(numbers, before.views, key=len), max(cut_views, before.cut_views, key=len)
            needed[photo.digest] = _Work(photo, numbers, cut_views)
        return list(needed.values())

    def _missing(self, needed: list[_Work], *, verify_activations: bool) -> list[_Work]:
        """What of it the store does not hold."""
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
                missing.append(_Work(work.photo, numbers, cut_views))
        return missing

    def _keys(self, needed: list[_Work], part: Literal["views", "cut_views"]) -> Iterator[Key]:
        return (key for work in needed for key in self.views.keys(work.photo.source, getattr(work, part)))

    def _compute_missing(self, dataset: Dataset, missing: list[_Work], on_progress: Callable[[int, int], None]) -> None:
        """Compute and store, about a thousand views at a time."""
        total, done, unwritten = sum(len(work.views) for work in missing), 0, 0
        self._check_room(missing)
        last = time.perf_counter()
        on_progress(0, total)
        try:
            for result in self._results(dataset, missing):
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
            # Also after an error: what is computed is paid for. Both at once, so that neither is missing without the
            # other.
            self.store.flush()

    def _check_room(self, missing: list[_Work]) -> None:
        parts = {"views": self.store.features, "cut_views": self.store.activations}
        size = sum(store.row_bytes * len(getattr(work, part)) for part, store in parts.items() for work in missing)
        check_room(self.store.features.folder, size, f"features of {len(missing):,} photos")

    def _results(self, dataset: Dataset, missing: list[_Work]) -> Iterator[_Result]:
        """Decode, draw and run; a photo is decoded once for all its views, and only a few dozen are in memory."""

        def draw(work: _Work) -> np.ndarray:
            with dataset.opened(work.photo, shorter_side=self.views.shorter_side) as rgb:
                return self.views.draw(rgb, work.photo.digest, work.views)

        threads = Threads(self.machine.workers)
        if self.trunk.runner.is_parallel:
            for results in threads.map(lambda work: self._run([work], draw(work)), missing):
                yield from results
        else:
            drawn = threads.map(lambda work: (work, draw(work)), missing)
            while batch := list(islice(drawn, self.machine.batch_size)):
                yield from self._run([work for work, _ in batch], np.concatenate([pixels for _, pixels in batch]))

    def _run(self, batch: list[_Work], pixels: np.ndarray) -> list[_Result]:
        """One pass of several images; `pixels` holds their views one after the other."""
        features, activations = self.trunk.run(pixels, with_activations=any(work.cut_views for work in batch))
        results, start = [], 0
        for work in batch:
            stop = start + len(work.views)
            keys = self.views.keys(work.photo.source, work.views)
            positions = [work.views.index(view) for view in work.cut_views]
            values = activations[start:stop][positions].astype(np.float16) if activations is not None else np.empty(0)
            results.append(_Result(keys, features[start:stop], [keys[position] for position in positions], values))
            start = stop
        return results
