"""A shipped file over a whole data set; what it said of a photo is stored, so that it is asked once.

Of a file in two parts that is what the frozen one said: the next night's file has another head and the same frozen
part, so only photos that no file has seen are run.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import PIL

from regraft.export.classifier import OnnxClassifier
from regraft.export.compose import write_graph
from regraft.export.two_parts import in_one_part
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.shards import Key, key_of

_ROWS = 4096  # written or read at a time


def open_said(store: Path, classifier: OnnxClassifier) -> Namespace:
    """Open the part of the store that holds what this very file, or the frozen part of it, said of photos."""
    facts = {
        "model": classifier.digest,
        "engine": f"onnxruntime {onnxruntime.__version__} (CPU)",
        "decoder": f"pillow {PIL.__version__}",
    }
    if parts := classifier.parts:
        facts |= {"model": parts.digest}
        return open_namespace(store, "shipped_features", facts, shape=(parts.feature_dim,), dtype="float32")
    return open_namespace(store, "probabilities", facts, shape=(len(classifier.class_names),), dtype="float32")


def probabilities_of(
    classifier: OnnxClassifier, dataset: Dataset, threads: Threads, *, stored: Namespace | None
) -> np.ndarray:
    """Return the probabilities of a whole data set, read from the raw files.

    Args:
        classifier: the shipped file.
        dataset: the photos.
        threads: that decode and run; told how many photos are done and to do.
        stored: from `open_said`: a photo that this file, or the frozen part of it, has seen is not run again. None runs
            the whole file on all of them.

    Returns:
        float32, shape (n, num_classes), in the order of the data set.
    """
    photos = {key_of(photo.source): photo for photo in dataset.photos()}

    def on_photo(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Key], np.ndarray]:
        def run(key: Key) -> np.ndarray:
            with dataset.opened(photos[key]) as rgb:
                return function(rgb)

        return run

    if stored is None:
        rows = dict(zip(photos, _counted(threads, on_photo(classifier.probabilities), list(photos)), strict=True))
    else:
        seen_by = classifier.features if classifier.parts else classifier.probabilities
        _fill(stored, list(photos), threads, on_photo(seen_by))
        rows = dict(zip(photos, _read(stored, list(photos), classifier), strict=True))
    return np.stack([rows[key_of(source)] for source in dataset.sources()])


def examine(
    draft: Path, graph: onnx.ModelProto, photos: Dataset, threads: Threads, *, whole_on: int, store: Path
) -> tuple[onnx.ModelProto, np.ndarray]:
    """Write a new file, and return its graph and what it says of photos.

    In two parts it is asked only if they give the very probabilities that the whole file gives; else it is put together
    for good, which costs time and nothing else.

    Args:
        draft: where it is written.
        graph: from `build_classifier`.
        photos: to ask it about.
        threads: that decode and run.
        whole_on: so many of the photos, the first ones, are run through the whole file in any case.
        store: the store's folder; used under a lease.
    """
    write_graph(draft, graph, None)
    classifier = OnnxClassifier(draft)
    if classifier.parts is None:
        return graph, probabilities_of(classifier, photos, threads, stored=None)
    whole = probabilities_of(classifier, photos.head(whole_on), threads, stored=None)
    said = probabilities_of(classifier, photos, threads, stored=open_said(store, classifier))
    if np.array_equal(whole, said[:whole_on]):
        return graph, said
    return examine(draft, in_one_part(graph), photos, threads, whole_on=whole_on, store=store)


def _counted(threads: Threads, run: Callable[[Key], np.ndarray], keys: list[Key]) -> Iterator[np.ndarray]:
    for number, row in enumerate(threads.map(run, keys), 1):
        yield row
        threads.on_progress(number, len(keys))


def _fill(stored: Namespace, keys: list[Key], threads: Threads, run: Callable[[Key], np.ndarray]) -> None:
    """Store what is missing."""
    new, last = stored.missing(keys), time.perf_counter()
    for number, (key, row) in enumerate(zip(new, _counted(threads, run, new), strict=True), 1):
        stored.append([key], row[None], seconds=time.perf_counter() - last)
        if number % _ROWS == 0:
            stored.flush()
        last = time.perf_counter()
    stored.flush()


def _read(stored: Namespace, keys: list[Key], classifier: OnnxClassifier) -> Iterator[np.ndarray]:
    """Yield the probabilities of each photo that is stored."""
    for start in range(0, len(keys), _ROWS):
        rows = stored.read(keys[start : start + _ROWS])
        yield from classifier.from_features(rows) if classifier.parts else rows
