"""Photos as worse cameras, worse light and worse connections would deliver them, in five severities each.

Every kind goes on from the severity before it, so that a curve over severities means something. Lengths are shares of
the photo's shorter side: what is done to a photo does not depend on how many pixels its camera has.

In the manner of Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", ICLR 2019; the five widths of blur are theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from math import ceil, hypot

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

SEVERITIES = 5


@dataclass(frozen=True, slots=True)
class Draw:
    """What is drawn once for a photo and stays the same in all severities."""

    left: float  # where a crop lies between the left end and the right end, 0 to 1
    top: float
    turns_left: bool

    @classmethod
    def of(cls, digest: str) -> "Draw":
        """Return it from a photo's SHA-256 in hexadecimal digits: the same photo always gets the same."""
        drawn = bytes.fromhex(digest[:10])
        return cls(int.from_bytes(drawn[:2]) / 65535, int.from_bytes(drawn[2:4]) / 65535, drawn[4] % 2 == 1)


@dataclass(frozen=True, slots=True)
class Corruption:
    """One kind: the name of what its levels are, and the level of each severity from 1 to 5."""

    quantity: str
    levels: tuple[float, ...]
    apply: Callable[[Image.Image, float, Draw], Image.Image]


def corrupt(rgb: np.ndarray, kind: str, severity: int, draw: Draw) -> np.ndarray:
    """Return a photo with one kind of damage.

    Args:
        rgb: uint8, shape (height, width, 3), any size.
        kind: a name in `KINDS`.
        severity: 0, which changes nothing, to 5.
        draw: what is drawn for this photo.

    Returns:
        uint8 RGB; of the same shape, except for small crops.
    """
    if severity == 0:
        return rgb
    corruption = KINDS[kind]
    return np.asarray(corruption.apply(Image.fromarray(rgb), corruption.levels[severity - 1], draw))


def _jpeg(image: Image.Image, quality: float, draw: Draw) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=int(quality))
    return Image.open(file, formats=["JPEG"])


def _blur(image: Image.Image, sigma: float, draw: Draw) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma / 100 * min(image.size)))


def _brightness(image: Image.Image, factor: float, draw: Draw) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _rotation(image: Image.Image, degrees: float, draw: Draw) -> Image.Image:
    """Turn a photo about its centre. What comes in at the corners is its mirror image: a black corner would be news."""
    width, height = image.size
    reach = hypot(width, height) / 2
    across, down = (ceil(reach - length / 2) + 1 for length in (width, height))
    padded = np.pad(np.asarray(image), ((down, down), (across, across), (0, 0)), mode="symmetric")
    turned = Image.fromarray(padded).rotate(degrees if draw.turns_left else -degrees, Image.Resampling.BICUBIC)
    return turned.crop((across, down, across + width, down + height))


def _crop(image: Image.Image, percent: float, draw: Draw) -> Image.Image:
    """Cut out a part of this share of the area, in the photo's own shape; each severity cuts from the one before."""
    scale = (percent / 100) ** 0.5
    width, height = (max(1, round(length * scale)) for length in image.size)
    left, top = round(draw.left * (image.width - width)), round(draw.top * (image.height - height))
    return image.crop((left, top, left + width, top + height))


# In the order of reports. Blur's levels are 1, 2, 3, 4 and 6 pixels of 224.
KINDS = {
    "jpeg": Corruption("JPEG quality", (50, 30, 20, 10, 5), _jpeg),
    "blur": Corruption("blur, % of the shorter side", (0.45, 0.89, 1.34, 1.79, 2.68), _blur),
    "darker": Corruption("darker: brightness times", (0.7, 0.5, 0.35, 0.25, 0.15), _brightness),
    "brighter": Corruption("brighter: brightness times", (1.3, 1.6, 2.0, 2.5, 3.2), _brightness),
    "rotation": Corruption("turned, degrees", (5, 10, 20, 30, 45), _rotation),
    "crop": Corruption("part of the photo, % of its area", (80, 60, 45, 30, 20), _crop),
}
