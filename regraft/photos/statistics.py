"""What a picture looks like, in a few numbers, and a hash that near-duplicates nearly share."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

_SIDE = 256  # pixels: numbers are those of a picture of at most this size, so that they do not depend on the camera's
_HASH_SIDE = 16  # of the square of bits: 256
_LEAST_CONTRAST = 0.01  # 2.5 grey levels: with less, a hash is made of noise and all blank pictures share it


@dataclass(frozen=True, slots=True)
class Appearance:
    """What `describe` finds out; the columns of the manifest say what each number is."""

    brightness: float
    contrast: float
    sharpness: float | None  # None below three pixels a side
    entropy: float
    phash: str | None  # None where there is nothing to hash


def describe(image: Image.Image) -> Appearance:
    """Describe a picture by its luma, ITU-R 601-2 as Pillow computes it, reduced to at most 256 pixels a side.

    Sharpness is the variance of the Laplacian (Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield
    microscopy"); phash is the perceptual hash of the discrete cosine transform (Zauner 2010, "Implementation and
    benchmarking of perceptual image hash functions") as `imagehash` computes it, with 256 bits: recompressed, resized
    or brightened copies of a photo differ in up to about 20 of them, different photos in 50 and more (docs/log.md).

    Args:
        image: upright, RGB, or its luma alone ("L").
    """
    import imagehash

    luma = image if image.mode == "L" else image.convert("L")
    factor = _SIDE / max(luma.size)
    if factor < 1:
        size = max(1, round(luma.width * factor)), max(1, round(luma.height * factor))
        luma = luma.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.asarray(luma, np.float32)
    contrast = float(pixels.std()) / 255
    return Appearance(
        brightness=float(pixels.mean()) / 255,
        contrast=contrast,
        sharpness=_sharpness(pixels),
        entropy=float(luma.entropy()),
        phash=str(imagehash.phash(luma, hash_size=_HASH_SIDE)) if contrast >= _LEAST_CONTRAST else None,
    )


def _sharpness(pixels: np.ndarray) -> float | None:
    if min(pixels.shape) < 3:
        return None
    centre = pixels[1:-1, 1:-1]
    laplacian = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:] - 4 * centre
    return float(laplacian.var())
