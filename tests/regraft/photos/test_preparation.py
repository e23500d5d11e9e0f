import itertools

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from regraft.photos import preparation as preparation_module
from regraft.photos.preparation import Preparation

SIZES = [  # height, width
    (64, 64),
    (480, 640),  # landscape
    (641, 479),  # portrait, odd
    (33, 1000),  # a strip
    (1000, 33),
    (17, 23),  # made larger
    (2, 3),
    (1, 1),
    (1, 90),
    (223, 225),  # about the network's size
    (1499, 2003),  # made much smaller
]


def by_pillow(preparation: Preparation, rgb: np.ndarray) -> np.ndarray:
    """What Pillow makes of the same square."""
    height, width = rgb.shape[:2]
    exact = np.float32(min(height, width)) * np.float32(preparation.crop_fraction) + np.float32(0.5)
    side = max(1, int(np.floor(exact)))
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(rgb[top : top + side, left : left + side])
    size = (preparation.image_size, preparation.image_size)
    return np.asarray(square.resize(size, Image.Resampling.BILINEAR)).astype(int)


@pytest.mark.parametrize(("image_size", "crop_fraction"), [(64, 0.875), (96, 1.0), (300, 0.875), (50, 0.3)])
def test_it_prepares_the_hardest_photos_at_any_network_size_as_pillow_does(image_size, crop_fraction):
    preparation = Preparation(image_size, crop_fraction)
    for height, width in SIZES:
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        difference = np.abs(preparation(noise) - by_pillow(preparation, noise))
        # Pillow rounds rows, then columns, so two at most.
        assert difference.max() <= 2, (height, width)
        assert (difference > 1).mean() < 2e-4, (height, width)
        assert (difference > 0).mean() < 0.3, (height, width)


def test_it_takes_the_same_square_as_pillow_at_every_size():
    # Black and white noise: a square that is off by one pixel would give another picture altogether.
    preparation = Preparation(32, 0.875)
    for height, width in itertools.product(range(30, 47), repeat=2):
        noise = np.random.default_rng(0).integers(0, 2, (height, width, 3), np.uint8) * 255
        assert np.abs(preparation(noise) - by_pillow(preparation, noise)).max() <= 2, (height, width)


def test_photos_of_one_size_are_prepared_together_as_alone(photo):
    photos = np.stack([photo(seed, 90, 70) for seed in range(3)])
    preparation = Preparation(64, 0.875)
    session = onnxruntime.InferenceSession(preparation.build_graph().SerializeToString())
    (together,) = session.run(None, {"image": photos})
    assert np.array_equal(together, np.stack([preparation(one) for one in photos]))


@pytest.mark.parametrize(
    ("height", "width", "fraction", "square"),
    [
        (100, 200, 0.5, np.s_[25:75, 75:125]),
        (200, 100, 1.0, np.s_[50:150, 0:100]),
        (10, 12, 0.5, np.s_[2:7, 3:8]),  # a margin of five is two before and three after
        (9, 9, 0.5, np.s_[2:7, 2:7]),  # 4.5 is rounded up to five
        (1, 3, 0.3, np.s_[0:1, 1:2]),  # at least one pixel
    ],
)
def test_the_centre_square_is_taken(photo, height, width, fraction, square):
    rgb = photo(0, width, height)
    # At its own size the square is not resized, so every pixel can be compared.
    assert np.array_equal(Preparation(rgb[square].shape[0], fraction)(rgb), rgb[square])


def test_a_large_photo_is_prepared_band_by_band_with_the_same_bits(monkeypatch):
    random = np.random.default_rng(0)
    monkeypatch.setattr(preparation_module, "_BAND", 2**13)
    for number in range(60):
        height, width = random.integers(1, 700, 2).tolist()
        rgb = random.integers(0, 256, (height, width, 3), np.uint8)
        how = Preparation([32, 64, 224, 299][number % 4], [1.0, 0.875, 0.5, 0.333, 0.11][number % 5])
        monkeypatch.setattr(preparation_module, "_LARGE", 2**40)
        whole = how(rgb)
        monkeypatch.setattr(preparation_module, "_LARGE", 0)
        assert np.array_equal(how(rgb), whole), (height, width, how)


def test_a_photo_above_the_limit_is_prepared_band_by_band_as_the_shipped_graph_does(monkeypatch):
    rgb = np.random.default_rng(0).integers(0, 256, (1500, 1700, 3), np.uint8)
    how = Preparation(224, 1.0)
    session = onnxruntime.InferenceSession(how.build_graph().SerializeToString(), providers=["CPUExecutionProvider"])
    asked, session_of = [], preparation_module._session
    monkeypatch.setattr(preparation_module, "_session", lambda *part: asked.append(part[1]) or session_of(*part))
    assert np.array_equal(how(rgb), session.run(None, {"image": rgb[None]})[0][0])
    assert set(asked) == {"horizontal", "vertical"}
