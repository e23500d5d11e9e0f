"""From photos to cached features: every image goes through the frozen backbone once in its life."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import PIL

from regraft.dataset import Dataset, read_photo
from regraft.images import in_threads
from regraft.preparation import Preparation
from regraft.store import Key, Namespace, key_of, open_namespace
from regraft.trunk import Trunk

Pixels = tuple[Key, np.ndarray]
_FLUSH_IMAGES = 1024  # a kill loses at most the work on so many


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a run paid for and what it did not have to."""

    images: int  # different image files
    views: int  # versions of each image that are kept
    rows: int  # images x views
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


def open_feature_store(
    root: Path, trunk: Trunk, preparation: Preparation, *, shared: str | None = None
) -> FeatureStore:
    """Open the namespaces of this backbone, this preprocessing and this engine, here and in the shared store."""
    facts = {
        "graph": trunk.digest,
        "engine": trunk.engine,
        "preprocessing": asdict(preparation),
        "decoder": f"pillow {PIL.__version__}",
    }
    return FeatureStore(
        open_namespace(root, "features", facts, shape=(trunk.feature_dim,), dtype="float32", shared=shared),
        open_namespace(root, "activations", facts, shape=trunk.activation_shape, dtype="float16", shared=shared),
    )


def extract_missing(
    dataset: Dataset,
    raw: Path,
    preparation: Preparation,
    trunk: Trunk,
    store: FeatureStore,
    *,
    with_activations: bool,
    batch_size: int,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> Receipt:
    """Compute what the store does not hold: one forward pass per new image, none for an image that was seen before.

    Args:
        dataset: the images that are needed.
        raw: the data folder.
        preparation: how they become what the trunk is given.
        trunk: the frozen backbone.
        store: where the results are kept.
        with_activations: keep the activations at the cut too, of train and val images; test images never need them.
        batch_size: images per forward pass. Changes memory, not the result.
        workers: threads that decode; 0 means one per core.
        on_progress: called with the number of images computed and to compute.
    """
    keys = {key_of(photo.digest): photo for photo in dataset.photos()}
    trained_on = dataset.of("train", "val") if with_activations else dataset.head(0)
    trainable = {key_of(digest) for digest in trained_on.rows.digest}
    missing = dict.fromkeys([*store.features.missing(keys), *store.activations.missing(trainable)])
    seconds_saved = store.features.seconds_for(key for key in keys if key not in missing)
    start = time.perf_counter()
    done = 0
    on_progress(0, len(missing))

    def prepared(key: Key) -> Pixels:
        return key, preparation(read_photo(raw, keys[key]))

    last = start
    try:
        for batch in _batches(in_threads(prepared, missing, workers=workers), batch_size):
            batch_keys = [key for key, _ in batch]
            kept = [index for index, key in enumerate(batch_keys) if key in trainable]
            features, activations = trunk.run(np.stack([pixels for _, pixels in batch]), with_activations=bool(kept))
            now = time.perf_counter()
            store.features.append(batch_keys, features, seconds=now - last)
            if activations is not None:
                values = activations[kept].astype(np.float16)
                store.activations.append([batch_keys[index] for index in kept], values, seconds=now - last)
            last = now
            if done // _FLUSH_IMAGES != (done + len(batch)) // _FLUSH_IMAGES:
                store.flush()
            done += len(batch)
            on_progress(done, len(missing))
    finally:
        # Also after an error: what is computed is paid for. Both at once, so that neither is missing without the other.
        store.flush()
    seconds = time.perf_counter() - start if missing else 0.0
    return Receipt(
        images=len(keys),
        views=1,
        rows=len(keys),
        from_store=len(keys) - len(missing),
        computed=len(missing),
        seconds=seconds,
        images_per_second=len(missing) / seconds if missing else None,
        seconds_saved=seconds_saved,
        store_bytes=store.features.stored_bytes + store.activations.stored_bytes,
        engine=trunk.engine,
    )


def _batches(items: Iterable[Pixels], size: int) -> Iterator[list[Pixels]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
