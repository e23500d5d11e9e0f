"""The pixels of a photo as a person sees them, and many photos at a time."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path, PurePath
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps

# Photo formats only. Pillow knows more, and hands PostScript, whatever its name, to a program that runs it.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO")
IMAGE_SUFFIXES = frozenset(
    suffix for suffix, name in Image.registered_extensions().items() if name in (*FORMATS, "MPO")
)
_FAMILIES = {"MPO": "JPEG", "DIB": "BMP"}
Item = TypeVar("Item")
Result = TypeVar("Result")
Image.MAX_IMAGE_PIXELS = None  # the limit is validate_data.max_pixels, and a fixed second one would only confuse


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
        return np.asarray(to_rgb(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the first frame of an opened image as `load_rgb` does; ValueError if its pixels have no agreed range."""
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


@dataclass(frozen=True, slots=True)
class Threads:
    """How many photos are worked on at a time, and who is told how far it is."""

    workers: int  # 0 means one per core that this process may use
    on_progress: Callable[[int, int], None] = lambda done, total: None  # called with what is done and the total

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(item)` in the order of `items`, several at a time, never more than a few dozen ahead.

        Pillow and hashlib release the interpreter's lock while they work, so threads use all cores.
        `ThreadPoolExecutor.map` alone would read everything ahead and hold every result in memory.
        """
        workers = self.workers or _cores()
        with ThreadPoolExecutor(workers, thread_name_prefix="regraft") as pool:
            waiting = iter(items)
            running = deque(pool.submit(function, item) for item in islice(waiting, 8 * workers))
            while running:
                yield running.popleft().result()
                running.extend(pool.submit(function, item) for item in islice(waiting, 1))


def _cores() -> int:
    # A container or a scheduler may allow fewer cores than the machine has.
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return len(allowed) or os.cpu_count() or 1
