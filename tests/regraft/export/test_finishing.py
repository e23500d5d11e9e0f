"""The proof of a file: what has to be refused is refused, whatever kind of picture shows it."""

from pathlib import Path

import numpy as np
import pytest

from regraft.core.errors import ExportMismatch
from regraft.export.finishing import TEST, compare_shapes, extreme_pictures, parity_of, refuse_difference


def means(photos: np.ndarray) -> np.ndarray:
    """Probabilities of two classes: how bright a photo is, and how dark."""
    bright = photos.mean(axis=(1, 2, 3))[:, None] / 255
    return np.hstack([bright, 1 - bright])


def expected(photos) -> np.ndarray:
    return np.concatenate([means(photo[None]) for photo in photos])


def test_pictures_of_all_extremes_are_among_those_compared():
    pictures = list(extreme_pictures())
    shapes = {picture.shape[:2] for picture in pictures}
    assert {(1, 1), (3, 10_000), (10_000, 3)} <= shapes
    assert any((picture == picture[:, :, :1]).all() and picture.std() > 0 for picture in pictures)  # grey
    assert all(np.array_equal(a, b) for a, b in zip(pictures, extreme_pictures(), strict=True))


@pytest.mark.parametrize(
    ("wrong", "compared"),
    [
        (lambda photos: means(photos) + (photos.shape[1] > 5000) * 0.1, "extreme pictures"),
        (lambda photos: means(photos) if len(photos) == 1 else np.roll(means(photos), 1, axis=0), "photos in a batch"),
    ],
)
def test_a_file_that_is_wrong_on_strips_or_in_batches_is_refused(wrong, compared):
    prepared = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    prepared[0] = 0
    extremes, batch = compare_shapes(wrong, expected, prepared)
    parities = {"extreme pictures": extremes, "photos in a batch": batch}
    with pytest.raises(ExportMismatch, match=compared):
        refuse_difference(parities, Path("model.onnx"))
    right = dict(zip(parities, compare_shapes(means, expected, prepared), strict=True))
    refuse_difference(right, Path("model.onnx"))


def test_test_photos_are_reported_and_decide_nothing():
    far = parity_of(np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]]))
    assert (far.same_top1, far.largest_gap) == (0.0, pytest.approx(0.6))
    refuse_difference({TEST: far}, Path("model.onnx"))
