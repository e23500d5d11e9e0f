"""The views of a photo that the backbone sees: the centre square, and augmented ones that never change.

An augmented view is drawn from numbers that follow from the image's digest and the number of the view alone. So it can
be cached as the centre view is, whichever process or machine draws it, and whatever else is in the data set.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from math import ceil, exp, log, sqrt
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageEnhance

from regraft.core.config import Preprocess
from regraft.core.files import fingerprint
from regraft.photos.preparation import Preparation

# What the fingerprint of a view cannot see by itself: raise it when the same photo would come out as other pixels.
# tests/regraft/test_views.py holds the pixels of one view and fails if they change.
_DRAWING = 1
_MAX_STRETCH = 1.33  # of a crop's sides against each other


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How augmented views are drawn."""

    min_area: float  # smallest share of the photo's area that a crop takes
    max_stretch: float  # a crop's sides are stretched against each other by at most this factor
    flip: bool  # mirror every second view, left to right
    brightness: float  # factors are drawn from 1 - this to 1 + this; so are the next two
    contrast: float
    saturation: float


@dataclass(frozen=True, slots=True)
class Views:
    """Which views there are, how each is drawn, and what it is called in the store."""

    preparation: Preparation  # view 0, the one that the shipped model sees
    augmentation: Augmentation  # views 1 to `count`
    count: int  # augmented views of every training image
    fast_decoding: bool  # whether JPEG files may be decoded at a part of their size

    @property
    def shorter_side(self) -> int | None:
        """Pixels that a photo's shorter side needs before a view is drawn from it, or None for all there are.

        Twice the network's, so that something is left for the antialiased resize, and for a crop of a quarter.
        """
        return ceil(2 * self.preparation.image_size / self.preparation.crop_fraction) if self.fast_decoding else None

    def of(self, split: str) -> range:
        """Return the numbers of the views that an image of this split has; only training images are augmented."""
        return range(self.count + 1 if split == "train" else 1)

    def key(self, source: str, view: int) -> bytes:
        """Return the key of a view in the store, 34 bytes; they stand for the photo and how it is drawn.

        Args:
            source: of the photo, as `regraft.photos.dataset.source_of` says it.
            view: its number.
        """
        how = self.augmentation if view else self.preparation
        drawing = _drawing_of(how, self.preparation.image_size, self.shorter_side)
        return hashlib.sha256(bytes.fromhex(source) + drawing).digest() + view.to_bytes(2, "big")

    def keys(self, source: str, views: Iterable[int]) -> list[bytes]:
        """Return the keys of several views of one image."""
        return [self.key(source, view) for view in views]

    def draw(self, rgb: np.ndarray, digest: str, views: Iterable[int]) -> np.ndarray:
        """Return some views of one photo.

        Args:
            rgb: the photo, uint8, shape (height, width, 3), upright, with a `shorter_side` as above.
            digest: SHA-256 of its file.
            views: numbers, 0 for the centre square.

        Returns:
            uint8, shape (views, image_size, image_size, 3), values 0 to 255.
        """
        size = self.preparation.image_size
        return np.stack(
            [
                _augmented(rgb, digest, view, self.augmentation, size) if view else self.preparation(rgb)
                for view in views
            ]
        )


def choose_views(settings: Preprocess, *, image_size: int, count: int) -> Views:
    """Turn the section `preprocess` of params.yaml into views at the backbone's image size."""
    return Views(
        Preparation(image_size, settings.crop_fraction),
        Augmentation(
            min_area=settings.augment_min_area,
            max_stretch=_MAX_STRETCH,
            flip=settings.augment_flip,
            brightness=settings.augment_colour,
            contrast=settings.augment_colour,
            saturation=settings.augment_colour,
        ),
        count,
        settings.fast_decoding,
    )


@cache
def _drawing_of(how: Preparation | Augmentation, image_size: int, shorter_side: int | None) -> bytes:
    """A digest of everything but the photo that decides the pixels of a view."""
    facts: dict[str, Any] = {
        "drawing": _DRAWING,
        "decoder": f"pillow {PIL.__version__}",
        "shorter_side": shorter_side,
    }
    if isinstance(how, Preparation):
        facts["graph"] = hashlib.sha256(how.build_graph().SerializeToString(deterministic=True)).hexdigest()
    else:
        facts |= {"augmentation": asdict(how), "image_size": image_size}
    return bytes.fromhex(fingerprint(facts))


def _augmented(rgb: np.ndarray, digest: str, view: int, how: Augmentation, size: int) -> np.ndarray:
    """Random resized crop (Szegedy et al. 2015, "Going deeper with convolutions", section 6), flip, colour jitter.

    The crop's area is uniform between `min_area` and 1, its aspect ratio log-uniform around the photo's own ratio to a
    square, its place uniform.
    """
    area, stretch, left, top, mirror, *jitter = _uniform_numbers(digest, view, 8)
    height, width = rgb.shape[:2]
    area = (how.min_area + (1 - how.min_area) * area) * height * width
    aspect = exp((2 * stretch - 1) * log(how.max_stretch))  # width / height of the crop
    crop_width, crop_height = min(width, sqrt(area * aspect)), min(height, sqrt(area / aspect))
    left, top = left * (width - crop_width), top * (height - crop_height)
    image = Image.fromarray(rgb).resize(
        (size, size),
        Image.Resampling.BILINEAR,
        # `min`: a sum that is above the side by the last bit would be refused.
        box=(left, top, min(width, left + crop_width), min(height, top + crop_height)),
    )
    if how.flip and mirror < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    strengths = (how.brightness, how.contrast, how.saturation)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for enhance, strength, number in zip(enhancers, strengths, jitter, strict=True):
        if strength:
            image = enhance(image).enhance(1 + (2 * number - 1) * strength)
    return np.asarray(image)


def _uniform_numbers(digest: str, view: int, count: int) -> list[float]:
    """Numbers from 0 to below 1 that follow from image and view.

    They come from a hash, because NumPy may draw other numbers from the same seed in its next version.
    """
    stream = hashlib.shake_256(bytes.fromhex(digest) + view.to_bytes(2, "big")).digest(8 * count)
    return ((np.frombuffer(stream, "<u8") >> np.uint64(11)) * 2.0**-53).tolist()
