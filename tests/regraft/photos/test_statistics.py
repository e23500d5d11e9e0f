from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from regraft.photos.decoder import describe


@pytest.fixture
def picture(photo) -> Image.Image:
    """A photo with fine detail, 240 x 180 pixels."""
    noise = np.random.default_rng(5).normal(0, 25, (180, 240, 3))
    return Image.fromarray((photo(3, 240, 180) + noise).clip(0, 255).astype(np.uint8))


def grey(value: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new("RGB", size, (value, value, value))


def bits(image: Image.Image) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(describe(image).phash or ""), np.uint8))


@pytest.mark.parametrize(("value", "expected"), [(0, 0.0), (51, 0.2), (255, 1.0)])
def test_brightness_is_the_mean_grey_between_black_and_white(value, expected):
    assert describe(grey(value)).brightness == pytest.approx(expected)


def test_one_colour_has_no_contrast_no_entropy_no_detail_and_no_hash():
    appearance = describe(grey(90))
    assert (appearance.contrast, appearance.entropy, appearance.sharpness, appearance.phash) == (0, 0, 0, None)


def test_half_black_and_half_white_is_the_largest_contrast_and_one_bit():
    image = grey(0)
    image.paste(grey(255, (20, 30)), (0, 0))
    assert (describe(image).contrast, describe(image).entropy) == (pytest.approx(0.5), pytest.approx(1.0))


def test_the_more_a_picture_is_blurred_the_less_sharp_it_is(picture):
    blurred = [picture.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 0.5, 1, 2)]
    sharpness = [describe(image).sharpness or 0 for image in blurred]
    assert all(sharper > 1.5 * softer for sharper, softer in pairwise(sharpness))


@pytest.mark.parametrize(
    "edit",
    [
        lambda image: image.resize((480, 360)),
        lambda image: ImageEnhance.Brightness(image).enhance(1.1),
        lambda image: image.convert("L").convert("RGB"),
    ],
    ids=["resized", "brightened", "without colours"],
)
def test_a_copy_of_a_picture_has_nearly_its_hash(picture, edit):
    assert (bits(picture) != bits(edit(picture))).sum() <= 20


def test_different_pictures_have_hashes_far_apart(photo):
    hashes = [bits(Image.fromarray(photo(seed, 200, 150))) for seed in range(12)]
    distances = [(one != other).sum() for position, one in enumerate(hashes) for other in hashes[:position]]
    assert min(distances) > 40


def test_a_picture_of_any_shape_is_described():
    for size in ((1, 1), (1, 900), (900, 1), (4000, 3)):
        assert describe(grey(128, size)).brightness == pytest.approx(128 / 255)
