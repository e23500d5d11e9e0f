"""A shipped file over a whole data set; its answers are stored, so that it runs once per photo.

Of a file whose backbone is frozen the features of its body are stored: the next file has another head and the same
body, so only photos that no file has seen are run.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import PIL

from regraft.core.processor import instruction_set
from regraft.export.classifier import OnnxClassifier
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.serving.shipped_model import check_answers
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.shards import Key, key_of

_ROWS = 4096  # written or read at a time


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a file for n photos."""

    probabilities: np.ndarray  # float32, shape (n, num_classes)
    novelty: np.ndarray | None  # float32, shape (n,); None of a file without that output

    @classmethod
    def of(cls, rows: np.ndarray, classifier: OnnxClassifier) -> "Answers":
        """Return them from rows, as `OnnxClassifier.row` returns one; InvalidModel if they are no answers."""
        count = len(classifier.class_names)
        answers = cls(rows[:, :count], rows[:, count] if classifier.has_novelty else None)
        check_answers(answers.probabilities, answers.novelty, count)
        return answers


def open_said(store: Path, classifier: OnnxClassifier, *, shared: str | None = None) -> Namespace:
    """Open the part of the store with the answers of this very file, or with the features of its frozen body."""
    facts = {
        "model": classifier.digest,
        "engine": f"onnxruntime {onnxruntime.__version__} (CPU, {instruction_set(integers=True)})",
        "decoder": f"pillow {PIL.__version__}",
    }
    if parts := classifier.frozen_parts:
        facts |= {"model": parts.digest}
        return open_namespace(
            store, "shipped_features", facts, shape=(parts.feature_dim,), dtype="float32", shared=shared
        )
    kind = "answers" if classifier.has_novelty else "probabilities"
    return open_namespace(store, kind, facts, shape=(classifier.row_length,), dtype="float32", shared=shared)


def answers_of(
    classifier: OnnxClassifier,
    dataset: Dataset,
    threads: Threads,
    *,
    stored: Namespace | None,
) -> Answers:
    """Return the answers of a file for a whole data set, read from the raw files.

    Args:
        classifier: the shipped file.
        dataset: the photos.
        threads: that decode and run; told how many photos are done and to do.
        stored: from `open_said`: a photo that this file, or its frozen body, has seen is not run again. None runs the
            whole file on all of them.
    """
    if stored is None or not classifier.frozen_parts:
        rows = _rows_of(dataset, classifier.row, threads, stored)
    else:
        rows = classifier.rows_from_features(features_of(classifier, dataset, threads, stored=stored))
    return Answers.of(rows, classifier)


def probabilities_of(
    classifier: OnnxClassifier, dataset: Dataset, threads: Threads, *, stored: Namespace | None
) -> np.ndarray:
    """Return the probabilities alone, float32, shape (n, num_classes); arguments as of `answers_of`."""
    return answers_of(classifier, dataset, threads, stored=stored).probabilities


def features_of(
    classifier: OnnxClassifier, dataset: Dataset, threads: Threads, *, stored: Namespace | None
) -> np.ndarray:
    """Return the features of a file for photos: float32, shape (n, feature_dim); arguments as above."""
    return _rows_of(dataset, classifier.features, threads, stored)


def _rows_of(
    dataset: Dataset, run: Callable[[np.ndarray], np.ndarray], threads: Threads, stored: Namespace | None
) -> np.ndarray:
    """Return a row per photo in the order of the data set; a file that is there twice is run once."""
    photos = {key_of(photo.source): photo for photo in dataset.photos()}

    def on_photo(key: Key) -> np.ndarray:
        with dataset.opened(photos[key]) as rgb:
            return run(rgb)

    def computed(keys: list[Key]) -> Iterator[np.ndarray]:
        for number, row in enumerate(threads.map(on_photo, keys), 1):
            yield row
            threads.on_progress(number, len(keys))

    keys = list(photos)
    if stored is None:
        rows = dict(zip(keys, computed(keys), strict=True))
    else:
        new, last = stored.missing(keys), time.perf_counter()
        for number, (key, row) in enumerate(zip(new, computed(new), strict=True), 1):
            stored.append([key], row[None], seconds=time.perf_counter() - last)
            if number % _ROWS == 0:
                stored.flush()
            last = time.perf_counter()
        stored.flush()
        parts = [keys[start : start + _ROWS] for start in range(0, len(keys), _ROWS)]
        rows = {key: row for part in parts for key, row in zip(part, stored.read(part), strict=True)}
    return np.stack([rows[key_of(source)] for source in dataset.sources()])
