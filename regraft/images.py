"""Photos as files: what they hold, and their pixels as a person sees them."""

import errno
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from math import ceil
from pathlib import Path, PurePath
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from regraft.appearance import describe

# Photo formats only. Pillow knows more, and hands PostScript, whatever its name, to a program that runs it.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO")
IMAGE_SUFFIXES = frozenset(
    suffix for suffix, name in Image.registered_extensions().items() if name in (*FORMATS, "MPO")
)
_FAMILIES = {"MPO": "JPEG", "DIB": "BMP"}
Item = TypeVar("Item")
Result = TypeVar("Result")
Image.MAX_IMAGE_PIXELS = None  # the limit is validate_data.max_pixels, and a fixed second one would only confuse
_EXIF_ORIENTATION = 0x0112  # tag number, Exif 2.3, section 4.6.4
_BITS_PER_SAMPLE = 258  # tag number, TIFF 6.0, section 3


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


def inspect(path: Path, *, max_pixels: int) -> ImageFacts:
    """Decode a file completely and return what it is; bad contents are a `problem`, never an exception.

    The content decides, not the name. Complete decoding is what finds truncated files: their headers are fine.

    Args:
        path: any file.
        max_pixels: images with more pixels are not decoded, whatever their header promises.

    Raises:
        OSError: the machine failed (disk, network, permission, memory), which says nothing about the contents.
    """
    facts: dict[str, object] = {}
    try:
        with _opened(path, max_pixels) as image:
            facts.update(
                format=image.format,
                width=image.width,
                height=image.height,
                mode=image.mode,
                bit_depth=_bit_depth(image),
                orientation=_orientation(image),
                frames=getattr(image, "n_frames", 1),
            )
            facts.update(asdict(describe(_to_rgb(image))))
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        return ImageFacts(problem="the file is empty" if empty else "not an image that can be read")
    except Exception as error:  # decoders raise anything on hostile bytes, and the file is reported by name
        if _is_of_the_machine(error):
            number = getattr(error, "errno", None) or errno.ENOMEM
            raise OSError(number, os.strerror(number)) from error
        return ImageFacts(**facts, problem=f"cannot be decoded: {_one_line(error)}")  # type: ignore[arg-type]
    return ImageFacts(**facts)  # type: ignore[arg-type]


def looks_like_an_image(path: Path) -> bool:
    """Whether a file that cannot be read was meant to be an image, by its name or by the first bytes of its content."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    with path.open("rb") as file:
        start = file.read(16)
    return start.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\x00", b"MM\x00*", b"BM")) or (
        start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    )


def is_suffix_of(path: str, format_name: str) -> bool:
    """Whether a name may belong to a file of this format: a suffix of another image format may not."""
    named = Image.registered_extensions().get(PurePath(path).suffix.lower(), format_name)
    # A camera's MPO is a JPEG file with more behind it, and a DIB is a BMP without its first bytes.
    return not format_name or _FAMILIES.get(named, named) == _FAMILIES.get(format_name, format_name)


def load_rgb(path: Path | BinaryIO, *, shorter_side: int | None = None) -> np.ndarray:
    """Return an image as a person sees it: upright by its EXIF orientation, RGB, the first frame, on white.

    Args:
        path: a file that `inspect` found no problem with (nothing limits its size here), or its contents as a stream.
        shorter_side: pixels that are enough: a larger JPEG is decoded at 1/2, 1/4 or 1/8 of its size, not below this.

    Returns:
        uint8, shape (height, width, 3), values 0 to 255.

    Raises:
        OSError, ValueError: the file is not a readable image.
    """
    with Image.open(path, formats=FORMATS) as image:
        if shorter_side and min(image.size) > shorter_side:
            factor = shorter_side / min(image.size)
            image.draft(
                None, (ceil(image.width * factor), ceil(image.height * factor))
            )  # does nothing to other formats
        return np.asarray(_to_rgb(image))


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """Yield `function(item)` in the order of `items`, several at a time, never more than a few dozen ahead.

    Pillow and hashlib release the interpreter's lock while they work, so threads use all cores.
    `ThreadPoolExecutor.map` alone would read everything ahead and hold every result in memory.
    """
    workers = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(workers, thread_name_prefix="regraft") as pool:
        waiting = iter(items)
        running = deque(pool.submit(function, item) for item in islice(waiting, 8 * workers))
        while running:
            yield running.popleft().result()
            running.extend(pool.submit(function, item) for item in islice(waiting, 1))


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """`Image.open`, refusing more than `max_pixels` before anything is decoded."""
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > max_pixels:
            size = f"{image.width} x {image.height} pixels"
            raise ValueError(f"{size} is above validate_data.max_pixels ({max_pixels})")
        yield image


def _orientation(image: Image.Image) -> int:
    # Cameras and editors write all kinds of things into this tag; only a number, of 16 bits by the standard, turns it.
    value = image.getexif().get(_EXIF_ORIENTATION, 1)
    return value if isinstance(value, int) and 0 <= value < 2**16 else 1


def _bit_depth(image: Image.Image) -> int:
    """Bits of one channel in the file; Pillow's mode says it only of what it makes of them."""
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0]  # type: ignore[attr-defined]
        return bits if isinstance(bits, int) else 8
    # Before it is decoded, a PNG's pixels have a name such as RGB;16B or L;2.
    tiles = getattr(image, "tile", [])
    raw = tiles[0].args if tiles else ""
    written = re.search(r";(\d+)", raw if isinstance(raw, str) else "")
    return int(written[1]) if written else {"1": 1, "I": 32, "F": 32, "I;16": 16}.get(image.mode, 8)


def _to_rgb(image: Image.Image) -> Image.Image:
    image.seek(0)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers with no agreed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        # 16 bits a pixel: Pillow's own conversion clips at 255 instead of scaling.
        grey = np.asarray(image).astype(np.int64)
        image = Image.fromarray((np.clip(grey, 0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _is_of_the_machine(error: Exception) -> bool:
    """Whether memory, the disk or the network is to blame and not the file."""
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return True
    # Decoders' own errors have no number; EINVAL is a seek to where hostile bytes point.
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
