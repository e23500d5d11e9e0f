import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft.core.params_file import load_params
from regraft.photos.preparation import Preparation
from regraft.photos.views import Augmentation, Views, choose_views

DIGEST, OTHER = (hashlib.sha256(name).hexdigest() for name in (b"a photo", b"another"))
PLAIN = Augmentation(min_area=1.0, max_stretch=1.0, flip=False, brightness=0.0, contrast=0.0, saturation=0.0)
FULL = Augmentation(min_area=0.35, max_stretch=1.33, flip=True, brightness=0.2, contrast=0.2, saturation=0.2)

GOLDEN = [[92.95, 116.0, 58.64], [160.11, 126.64, 91.79]]  # mean red, green and blue of two views


def views(augmentation: Augmentation = FULL, size: int = 48, crop: float = 1.0) -> Views:
    return Views(Preparation(size, crop), augmentation, count=2, fast_decoding=False)


@pytest.fixture(scope="module")
def rgb(photo) -> np.ndarray:
    return photo(1, 90, 70)


def test_the_centre_view_is_what_the_shipped_model_sees(rgb):
    assert np.array_equal(views().draw(rgb, DIGEST, [0])[0], Preparation(48, 1.0)(rgb))


def test_a_view_never_changes(rgb):
    # Cached views stand for these pixels. If this fails because they had to change, raise views._DRAWING.
    x, y = np.meshgrid(np.arange(80), np.arange(60))
    pixels = np.stack([x * 3, y * 4, (x + y) % 256], axis=2).astype(np.uint8)
    means = views(size=16).draw(pixels, DIGEST, [1, 2]).reshape(2, -1, 3).mean(axis=1)
    assert means == pytest.approx(np.array(GOLDEN), abs=0.51)  # Pillow may round one grey level otherwise


def test_a_view_does_not_depend_on_what_else_is_drawn(rgb):
    together = views().draw(rgb, DIGEST, [1, 2, 3])
    assert np.array_equal(together[1], views().draw(rgb, DIGEST, [2])[0])


@pytest.mark.parametrize(("flip", "both"), [(True, True), (False, False)])
def test_mirroring_can_be_turned_off(photo, flip, both):
    square = photo(2, 48, 48)
    drawn = views(replace(PLAIN, flip=flip)).draw(square, DIGEST, range(1, 17))
    mirrored = {bool(np.array_equal(view, square[:, ::-1])) for view in drawn}
    assert mirrored == ({True, False} if both else {False})


def test_a_crop_takes_at_least_the_smallest_area():
    # The red value counts columns, the green one rows: their spread is the size of the crop.
    x, y = np.meshgrid(np.arange(256), np.arange(256))
    ramp = np.stack([x, y, x], axis=2).astype(np.uint8)
    drawn = views(replace(PLAIN, min_area=0.5, max_stretch=1.2), size=64).draw(ramp, DIGEST, range(1, 40)).astype(int)
    spread = drawn.max(axis=(1, 2)) - drawn.min(axis=(1, 2))
    areas = (spread[:, 0] / 255) * (spread[:, 1] / 255)
    assert 0.5 * 0.95 < areas.min() < 0.6  # the outermost pixels of a resized crop are means of a few
    assert areas.max() > 0.85


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 70), width=st.integers(1, 70), view=st.integers(1, 300), area=st.floats(0.01, 1))
def test_photos_of_any_size_have_views(height, width, view, area):
    how = replace(FULL, min_area=area, max_stretch=4.0)
    drawn = views(how, size=8).draw(np.full((height, width, 3), 100, np.uint8), DIGEST, [view])
    assert drawn.shape == (1, 8, 8, 3)


def test_only_training_images_have_more_than_the_centre_view():
    assert [list(views().of(split)) for split in ("train", "val", "test")] == [[0, 1, 2], [0], [0]]


@pytest.mark.parametrize(
    ("change", "centre", "augmented"),
    [
        ({"count": 7}, True, True),
        ({"augmentation": replace(FULL, flip=False)}, True, False),
        ({"augmentation": replace(FULL, contrast=0.1)}, True, False),
        ({"preparation": Preparation(48, 0.875)}, False, True),
        ({"preparation": Preparation(64, 1.0)}, False, False),
        ({"fast_decoding": True}, False, False),
    ],
    ids=["count", "flip", "contrast", "crop", "size", "decoding"],
)
def test_a_key_changes_when_and_only_when_the_pixels_of_its_view_can(change, centre, augmented):
    before, after = views(), replace(views(), **change)
    assert (before.key(DIGEST, 0) == after.key(DIGEST, 0)) is centre
    assert (before.key(DIGEST, 1) == after.key(DIGEST, 1)) is augmented


def test_every_augmentation_setting_reaches_the_views(root):
    params = load_params(root / "params.yaml").preprocess
    before = choose_views(params, image_size=48, count=1)
    for name in [name for name in type(params).model_fields if name.startswith("augment_")]:
        value = getattr(params, name)
        changed = params.model_copy(update={name: (not value) if isinstance(value, bool) else value * 1.1})
        assert choose_views(changed, image_size=48, count=1).key(DIGEST, 1) != before.key(DIGEST, 1), name
