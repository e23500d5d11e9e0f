"""The proof that a file computes what was trained: on real photos, on shapes that no photo has, and in batches."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.core.errors import ExportMismatch
from regraft.export.classifier import OnnxClassifier
from regraft.export.scoring import probabilities_of
from regraft.export.trained_part import Expected
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads

_BATCH = 32  # photos at a time, of the other side, and of the file where batches are compared
TOLERANCE = 0.002  # largest difference of any probability; a wrong layer or order of classes differs by far more
IMAGES = 32  # photos of each split that are compared, from the raw file to probabilities
TEST = "test photos"  # only reported
Said = Callable[[np.ndarray], np.ndarray]  # a batch of photos of one size, (n, height, width, 3), to probabilities


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely the ONNX file follows what was trained, over some photos."""

    images: int
    largest_difference: float  # of any probability
    mean_difference: float  # of all probabilities
    same_top1: float  # share of photos with the same most probable class
    largest_gap: float  # between the two most probable classes, of the photos whose most probable class differs; or 0


def compare(onnx_side: np.ndarray, expected: Expected, dataset: Dataset) -> Parity:
    """Compare what the ONNX file said of raw photos with what it has to say of them.

    Args:
        onnx_side: probabilities of the photos, from `probabilities_of`, shape (n, num_classes).
        expected: of the `TrainedPart`.
        dataset: the n photos.
    """
    photos, batches = dataset.photos(), []
    for start in range(0, len(photos), _BATCH):
        batches.append(expected(map(dataset.read_photo, photos[start : start + _BATCH])))
    return parity_of(onnx_side, np.concatenate(batches))


def parity_of(onnx_side: np.ndarray, other_side: np.ndarray) -> Parity:
    """Compare probabilities, both of shape (n, num_classes)."""
    difference = np.abs(onnx_side - other_side)
    differs = onnx_side.argmax(axis=1) != other_side.argmax(axis=1)
    first_two = np.sort(other_side, axis=1)[:, -2:]
    gaps = (first_two[:, -1] - first_two[:, 0])[differs]
    same = 1 - float(differs.mean())
    return Parity(len(onnx_side), float(difference.max()), float(difference.mean()), same, float(gaps.max(initial=0)))


def prove(classifier: OnnxClassifier, expected: Expected, dataset: Dataset, threads: Threads) -> dict[str, Parity]:
    """Compare a file with what was trained, and return how closely it follows by what was compared.

    Args:
        classifier: the file.
        expected: of the `TrainedPart`.
        dataset: of all splits; `IMAGES` of each are compared, from the raw file to probabilities.
        threads: that decode and run.
    """
    found = {}
    for split in ("val", "train", "test"):
        photos = dataset.of(split).head(IMAGES)
        if len(photos):
            found[f"{split} photos"] = compare(
                probabilities_of(classifier, photos, threads, stored=None), expected, photos
            )
    preparation = classifier.preparation
    val = dataset.of("val").head(_BATCH)
    prepared = np.stack([preparation(val.read_photo(photo)) for photo in val.photos()])
    found["extreme pictures"], found["photos in a batch"] = compare_shapes(classifier.batch, expected, prepared)
    return found


def compare_shapes(said: Said, expected: Expected, prepared: np.ndarray) -> tuple[Parity, Parity]:
    """Compare where a graph may be right on photos of a usual size alone.

    Args:
        said: what the file says of a batch.
        expected: of the `TrainedPart`.
        prepared: real photos of one size, uint8, shape (n, side, side, 3).

    Returns:
        The file on pictures of extreme shapes, one by one, against what was trained; and on a batch against one by one.
    """
    extremes = list(extreme_pictures())
    alone = np.concatenate([said(picture[None]) for picture in extremes])
    batch = prepared[:_BATCH]
    one_by_one = np.concatenate([said(picture[None]) for picture in batch])
    return parity_of(alone, expected(extremes)), parity_of(said(batch), one_by_one)


def extreme_pictures() -> Iterable[np.ndarray]:
    """Yield pictures that are no photos, and always the same: one pixel, strips, black, white, grey, a portrait.

    Each is uint8 RGB of shape (height, width, 3). What is transparent is white by then: see `regraft.photos.images`.
    """
    random = np.random.default_rng(0)
    for height, width in [(1, 1), (1, 2), (3, 10_000), (10_000, 3), (400, 225)]:
        yield random.integers(0, 256, (height, width, 3), np.uint8)
    yield np.repeat(random.integers(0, 256, (97, 131, 1), np.uint8), 3, axis=2)
    yield np.zeros((50, 60, 3), np.uint8)
    yield np.full((60, 50, 3), 255, np.uint8)


def refuse_difference(parities: Mapping[str, Parity], path: Path) -> None:
    """Refuse to ship a graph that computes something else than what was trained; test photos do not decide.

    Within `TOLERANCE` no photo has another most probable class whose first two are more than twice that apart.

    Args:
        parities: from `prove`.
        path: of the file that the graph was to replace.

    Raises:
        ExportMismatch: they differ by more.
    """
    for compared, parity in parities.items():
        if compared == TEST:
            continue
        if not parity.largest_difference <= TOLERANCE:  # NaN is no agreement
            raise ExportMismatch(
                f"the ONNX graph and the trained network differ by {parity.largest_difference:.2g} in a probability, "
                f"over {parity.images} {compared} (allowed: {TOLERANCE:g}). {path} is left as it was. "
                f"This is a defect of the conversion: please report it with the versions in requirements.lock."
            )
