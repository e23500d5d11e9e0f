import numpy as np
import pytest
from PIL import Image

from regraft.photos.corruptions import KINDS, SEVERITIES, Draw, corrupt
from regraft.photos.images import load_rgb

DRAW = Draw(left=0.25, top=0.75, turns_left=True)


@pytest.fixture(scope="module")
def photos(real_photos) -> list[np.ndarray]:
    return [load_rgb(path) for path in real_photos[:4]]


def difference(rgb: np.ndarray, changed: np.ndarray) -> float:
    """Mean absolute difference in grey levels; a crop is brought to the photo's size first."""
    if changed.shape != rgb.shape:
        changed = np.asarray(Image.fromarray(changed).resize(rgb.shape[1::-1], Image.Resampling.BICUBIC))
    return float(np.abs(changed.astype(int) - rgb.astype(int)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_every_severity_changes_a_photo_more_than_the_one_before(photos, kind):
    changes = [
        np.mean([difference(rgb, corrupt(rgb, kind, severity, DRAW)) for rgb in photos])
        for severity in range(SEVERITIES + 1)
    ]
    assert changes[0] == 0
    assert np.all(np.diff(changes) > 0.05), changes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 200, 3), (97, 2, 3)])
def test_a_photo_of_any_shape_stays_a_photo(kind, shape):
    changed = corrupt(np.full(shape, 90, np.uint8), kind, SEVERITIES, DRAW)
    assert changed.dtype == np.uint8
    assert changed.ndim == 3
    assert min(changed.shape) >= 1
    assert kind == "crop" or changed.shape == shape


def test_the_same_photo_is_damaged_in_the_same_way_every_time(photos):
    for kind in KINDS:
        once, again = (corrupt(photos[1], kind, 3, Draw.of("0f" * 32)) for _ in range(2))
        np.testing.assert_array_equal(once, again)


def test_a_smaller_crop_lies_within_a_larger_one():
    rows, columns = np.mgrid[0:200, 0:250]
    places = np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)
    before = set()
    for severity in range(SEVERITIES, 0, -1):
        seen = {(int(row), int(column)) for row, column, _ in corrupt(places, "crop", severity, DRAW).reshape(-1, 3)}
        assert before <= seen
        before = seen
    assert len(before) == pytest.approx(200 * 250 * KINDS["crop"].levels[0] / 100, rel=0.02)
