"""From photos to cached features: every view of an image goes through the frozen backbone once in its life."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from regraft.backbones.trunk import Trunk
from regraft.photos.dataset import Dataset, Photo, read_photo
from regraft.photos.images import in_threads
from regraft.photos.views import Views
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.shards import Key

_FLUSH_ROWS = 1024  # a kill loses at most the work on so many


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a run paid for and what it did not have to."""

    images: int  # different image files
    views: int  # versions of a training image that are kept, the centre square among them
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
class FeatureStore:
    """The two parts of the store that a forward pass fills."""

    features: Namespace  # pooled, float32, (feature_dim,)
    activations: Namespace  # at the cut, float16, (height, width, channels)

    def flush(self) -> None:
        """Write what both still hold in memory."""
        try:
            self.activations.flush()
        finally:
            self.features.flush()  # also when the first part was kept here and could not be sent


@dataclass(frozen=True, slots=True)
class _Work:
    """The views of one image that have to be computed, and those among them whose activations have to be kept."""

    photo: Photo
    views: list[int]
    kept: list[int]


@dataclass(frozen=True, slots=True)
class _Result:
    """What came out for one image."""

    keys: list[Key]
    features: np.ndarray  # float32, (views, feature_dim)
    kept_keys: list[Key]
    activations: np.ndarray  # float16, (kept views, *activation_shape)


def open_feature_store(root: Path, trunk: Trunk, *, shared: str | None = None) -> FeatureStore:
    """Open the namespaces of this backbone and this engine, here and in the shared store.

    How a photo becomes a view is part of the rows' keys.
    """
    facts = {"graph": trunk.digest, "engine": trunk.engine}
    return FeatureStore(
        open_namespace(root, "features", facts, shape=(trunk.feature_dim,), dtype="float32", shared=shared),
        open_namespace(root, "activations", facts, shape=trunk.activation_shape, dtype="float16", shared=shared),
    )


def extract_missing(
    dataset: Dataset,
    raw: Path,
    views: Views,
    trunk: Trunk,
    store: FeatureStore,
    *,
    with_activations: bool,
    verify_activations: bool,
    batch_size: int,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> Receipt:
    """Compute what the store does not hold: one forward pass per new view, none for one that was computed before.

    Args:
        dataset: the images that are needed.
        raw: the data folder.
        views: which views of them are needed, and how they are drawn.
        trunk: the frozen backbone.
        store: where the results are kept.
        with_activations: keep the activations at the cut too, of train and val images; test images never need them.
        verify_activations: whether the caller reads them all next, so that damaged ones have to be found now; features
            are always verified.
        batch_size: images per forward pass where one thread makes them all (`Runner.is_parallel`).
        workers: threads that decode; 0 means one per core.
        on_progress: called with the number of views computed and to compute.
    """
    needed = _needed(dataset, views, with_activations)
    missing = _missing(needed, views, store, verify_activations=verify_activations)
    rows, total = (sum(len(work.views) for work in part) for part in (needed, missing))
    gone = {key for work in missing for key in views.keys(work.photo.digest, work.views)}
    seconds_saved = store.features.seconds_for(
        key for work in needed for key in views.keys(work.photo.digest, work.views) if key not in gone
    )
    start = last = time.perf_counter()
    done = unwritten = 0
    on_progress(0, total)
    try:
        for result in _compute(missing, raw, views, trunk, batch_size=batch_size, workers=workers):
            now = time.perf_counter()
            store.features.append(result.keys, result.features, seconds=now - last)
            if result.kept_keys:
                store.activations.append(result.kept_keys, result.activations, seconds=now - last)
            last = now
            done += len(result.keys)
            unwritten += len(result.keys)
            if unwritten >= _FLUSH_ROWS:
                store.flush()
                unwritten = 0
            on_progress(done, total)
    finally:
        # Also after an error: what is computed is paid for. Both at once, so that neither is missing without the other.
        store.flush()
    seconds = time.perf_counter() - start if missing else 0.0
    return Receipt(
        images=len(needed),
        views=views.count + 1,
        rows=rows,
        from_store=rows - total,
        computed=total,
        seconds=seconds,
        images_per_second=total / seconds if missing else None,
        seconds_saved=seconds_saved,
        store_bytes=store.features.stored_bytes + store.activations.stored_bytes,
        engine=trunk.engine,
    )


def _needed(dataset: Dataset, views: Views, with_activations: bool) -> list[_Work]:
    """Every different image once, as if nothing were in the store; a file in two splits has what either needs."""
    needed: dict[str, _Work] = {}
    for photo in dataset.photos():
        numbers = list(views.of(photo.split))
        kept = numbers if with_activations and photo.split != "test" else []
        if before := needed.get(photo.digest):
            numbers, kept = max(numbers, before.views, key=len), max(kept, before.kept, key=len)
        needed[photo.digest] = _Work(photo, numbers, kept)
    return list(needed.values())


def keys_of(dataset: Dataset, views: Views) -> list[Key]:
    """Return the keys of all views of a data set, once each."""
    return list(dict.fromkeys(_keys(_needed(dataset, views, with_activations=False), views, "views")))


def _missing(needed: list[_Work], views: Views, store: FeatureStore, *, verify_activations: bool) -> list[_Work]:
    """What of it the store does not hold."""
    no_features = set(store.features.missing(_keys(needed, views, "views")))
    no_activations = set(store.activations.missing(_keys(needed, views, "kept"), verify=verify_activations))
    if not no_features and not no_activations:
        return []
    missing = []
    for work in needed:
        digest = work.photo.digest
        kept = [view for view in work.kept if views.key(digest, view) in no_activations]
        numbers = [view for view in work.views if view in kept or views.key(digest, view) in no_features]
        if numbers:
            missing.append(_Work(work.photo, numbers, kept))
    return missing


def _keys(needed: list[_Work], views: Views, part: Literal["views", "kept"]) -> Iterator[Key]:
    return (key for work in needed for key in views.keys(work.photo.digest, getattr(work, part)))


def _compute(
    missing: list[_Work], raw: Path, views: Views, trunk: Trunk, *, batch_size: int, workers: int
) -> Iterator[_Result]:
    """Decode, draw and run; a photo is decoded once for all its views, and no more than a few dozen are in memory."""

    def draw(work: _Work) -> np.ndarray:
        rgb = read_photo(raw, work.photo, shorter_side=views.shorter_side)
        return views.draw(rgb, work.photo.digest, work.views)

    if trunk.runner.is_parallel:
        for results in in_threads(lambda work: _run([work], draw(work), views, trunk), missing, workers=workers):
            yield from results
    else:
        drawn = in_threads(lambda work: (work, draw(work)), missing, workers=workers)
        while batch := list(islice(drawn, batch_size)):
            yield from _run([work for work, _ in batch], np.concatenate([pixels for _, pixels in batch]), views, trunk)


def _run(batch: list[_Work], pixels: np.ndarray, views: Views, trunk: Trunk) -> list[_Result]:
    """One pass of several images; `pixels` holds their views one after the other."""
    features, activations = trunk.run(pixels, with_activations=any(work.kept for work in batch))
    results, start = [], 0
    for work in batch:
        stop = start + len(work.views)
        keys = views.keys(work.photo.digest, work.views)
        positions = [work.views.index(view) for view in work.kept]
        values = activations[start:stop][positions].astype(np.float16) if activations is not None else np.empty(0)
        results.append(_Result(keys, features[start:stop], [keys[position] for position in positions], values))
        start = stop
    return results
