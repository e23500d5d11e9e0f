"""A shipped file over a whole data set; what it said of a photo is stored, so that it is asked once."""

import time
from pathlib import Path

import numpy as np
import onnxruntime
import PIL

from regraft.export.classifier import OnnxClassifier
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.shards import Key, key_of


def open_probabilities(store: Path, classifier: OnnxClassifier) -> Namespace:
    """Open the part of the store that holds what this very file said of photos."""
    facts = {
        "model": classifier.digest,
        "engine": f"onnxruntime {onnxruntime.__version__} (CPU)",
        "decoder": f"pillow {PIL.__version__}",
    }
    return open_namespace(store, "probabilities", facts, shape=(len(classifier.class_names),), dtype="float32")


def probabilities_of(
    classifier: OnnxClassifier, dataset: Dataset, threads: Threads, *, stored: Namespace | None
) -> np.ndarray:
    """Return the probabilities of a whole data set, read from the raw files.

    Args:
        classifier: the shipped file.
        dataset: the photos.
        threads: that decode and run; told how many photos are done and to do.
        stored: from `open_probabilities`: a photo that this file has seen is not run again. None runs all of them.

    Returns:
        float32, shape (n, num_classes), in the order of the data set.
    """
    photos = {key_of(photo.source): photo for photo in dataset.photos()}

    def classify(key: Key) -> np.ndarray:
        with dataset.opened(photos[key]) as rgb:
            return classifier.probabilities(rgb)

    new = list(photos) if stored is None else stored.missing(photos)
    computed = threads.map(classify, new)
    rows: dict[Key, np.ndarray] = {}
    last = time.perf_counter()
    for key, probabilities in zip(new, computed, strict=True):
        rows[key] = probabilities
        if stored is not None:
            stored.append([key], probabilities[None], seconds=time.perf_counter() - last)
        last = time.perf_counter()
        threads.on_progress(len(rows), len(new))
    if stored is not None:
        stored.flush()
        rows |= dict(zip(photos, stored.read(list(photos)), strict=True))
    return np.stack([rows[key_of(source)] for source in dataset.sources()])
