"""What a file holds, and its thumbnail; a run asks `regraft.photos.inspectors`, where hostile bytes do no harm."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from regraft.photos.images import is_heif, open_image, reduce_draft, start_of, to_luma, to_rgb
from regraft.photos.memory import LARGEST_BYTES_PER_PIXEL, bytes_needed, decoded_pixels

_EXIF_ORIENTATION = 0x0112  # tag number, Exif 2.3, section 4.6.4
_BITS_PER_SAMPLE = 258  # tag number, TIFF 6.0, section 3
_SIDE = 256  # pixels: numbers are those of a picture of at most this size, so that they do not depend on the camera's
_HASH_SIDE = 16  # of the square of bits: 256
_LEAST_CONTRAST = 0.01  # 2.5 grey levels: with less, a hash is made of noise and all blank pictures share it


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one file may ask of the machine."""

    max_pixels: int  # width x height; an image with more is not decoded
    max_seconds: float  # that decoding may take


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What one file turned out to be; `problem` says why it cannot be used and is None for a good image."""

    format: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    bit_depth: int | None = None
    orientation: int | None = None
    frames: int | None = None
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    entropy: float | None = None
    phash: str | None = None
    problem: str | None = None


class Admission:
    """Who is asked before a file is decoded; this one lets everything in."""

    def admit(self, needed: int) -> None:
        """Wait until so many bytes of memory are free, and let no more be taken."""

    def was_exceeded(self) -> bool:
        """Whether memory was refused because a file wanted more than it was admitted with."""
        return False


def inspect(path: Path, *, max_pixels: int, admission: Admission | None = None) -> ImageFacts:
    """Decode a file completely and return what it is; bad contents are a `problem`, never an exception.

    The content decides, not the name. Complete decoding is what finds truncated files: their headers are fine.

    Args:
        path: any file.
        max_pixels: images with more pixels are not decoded, whatever their header promises.
        admission: is asked before anything is decoded.

    Raises:
        OSError: the machine failed (disk, network, permission, memory), which says nothing about the contents.
    """
    admission = admission or Admission()
    facts: dict[str, Any] = {}
    try:
        with _opened(path, max_pixels, admission) as image:
            facts.update(
                format=image.format,
                width=image.width,
                height=image.height,
                mode=image.mode,
                bit_depth=_bit_depth(image),
                orientation=_orientation(image),
                frames=getattr(image, "n_frames", 1),
            )
            facts.update(asdict(describe(to_luma(image))))
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        return ImageFacts(problem="the file is empty" if empty else "not an image that can be read")
    except Exception as error:  # decoders raise anything on hostile bytes, and the file is reported by name
        if not facts and is_heif(start_of(path)):  # also where the library is missing
            facts["format"] = "HEIF"
        return ImageFacts(**facts, problem=f"cannot be decoded: {reason_of(error, admission)}")
    return ImageFacts(**facts)


def draw_thumbnail(
    path: Path, *, side: int, is_square: bool, max_pixels: int, admission: Admission | None = None
) -> Image.Image:
    """Return a photo with at most `side` pixels a side, or its centre square with exactly so many.

    Raises:
        Exception: as decoders raise it, of any kind.
    """
    with _opened(path, max_pixels, admission or Admission(), shorter_side=side) as image:
        picture = Image.fromarray(to_rgb(image))
    if is_square:
        return ImageOps.fit(picture, (side, side), Image.Resampling.BILINEAR)
    picture.thumbnail((side, side))
    return picture


@contextmanager
def _opened(
    path: Path, max_pixels: int, admission: Admission, shorter_side: int | None = None
) -> Iterator[Image.Image]:
    """`open_image`, refusing what is too large before anything is decoded."""
    with open_image(path) as image:
        pixels = decoded_pixels(image)
        if pixels > max_pixels:
            size = f"{image.width} x {image.height} pixels"
            if pixels > image.width * image.height:
                size = f"a tile of {pixels} pixels"
            raise ValueError(f"{size} is above validate_data.max_pixels ({max_pixels})")
        reduce_draft(image, shorter_side)
        needed, most = bytes_needed(image, path.stat().st_size), LARGEST_BYTES_PER_PIXEL * max_pixels
        if needed > most:
            raise ValueError(
                f"as {image.format} it takes {_megabytes(needed)} of memory, above {_megabytes(most)} "
                f"({LARGEST_BYTES_PER_PIXEL} bytes for each of validate_data.max_pixels); save it as JPEG or PNG"
            )
        admission.admit(needed)
        yield image


def _megabytes(size: int) -> str:
    return f"{size // 10**6} MB"


def _orientation(image: Image.Image) -> int:
    # Cameras and editors write all kinds of things into this tag; only a number, of 16 bits by the standard, turns it.
    value = image.getexif().get(_EXIF_ORIENTATION, 1)
    return value if isinstance(value, int) and 0 <= value < 2**16 else 1


def _bit_depth(image: Image.Image) -> int:
    """Bits of one channel in the file; Pillow's mode says it only of what it makes of them."""
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0]
        return bits if isinstance(bits, int) else 8
    # Before it is decoded, a PNG's pixels have a name such as RGB;16B or L;2.
    tiles = getattr(image, "tile", [])
    raw = tiles[0].args if tiles else ""
    written = re.search(r";(\d+)", raw if isinstance(raw, str) else "")
    return int(written[1]) if written else {"1": 1, "I": 32, "F": 32, "I;16": 16}.get(image.mode, 8)


def reason_of(error: Exception, admission: Admission) -> str:
    """Say in one line why a file cannot be decoded; OSError if memory, the disk or the network is to blame."""
    no_memory = isinstance(error, MemoryError) or "out of memory" in str(error).lower()
    number = errno.ENOMEM if no_memory else error.errno if isinstance(error, OSError) else None
    if number == errno.ENOMEM and admission.was_exceeded():
        return "it takes more memory than its header explains; save it again, for instance as JPEG"
    # Decoders' own errors have no number; EINVAL is a seek to where hostile bytes point.
    if number not in (None, errno.EINVAL):
        raise OSError(number, os.strerror(number)) from error
    return " ".join(str(error).split())[:200] or type(error).__name__


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
