"""The pixels of a photo as a person sees them, and many photos at a time.

HEIC, the format of phones' photos, is decoded by libheif, which is loaded only where there is such a photo. It applies
the rotation that the container asks for; the orientation in the EXIF data says the same once more and is ignored. The
primary picture counts: thumbnails, depth maps and the other pictures of a burst do not.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from itertools import islice
from math import ceil
from pathlib import Path, PurePath
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import AvifImagePlugin, Image, ImageOps

# Photo formats only, and HEIC. Pillow knows more, and hands PostScript, whatever its name, to a program that runs it.
# An icon (ICO) is decoded when it is opened, whatever the size of the picture inside, so it is none of them.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
_FAMILIES = {"MPO": "JPEG", "DIB": "BMP"}
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
# Brands of still pictures that are coded with HEVC, ISO/IEC 23008-12, annex B.4; "mif1" may hold any other coding too.
_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis"})
_CONTAINER = b"mif1"
Item = TypeVar("Item")
Result = TypeVar("Result")
_START = 64  # bytes
_PART_PIXELS = 2**20
Image.MAX_IMAGE_PIXELS = None  # the limit is validate_data.max_pixels, and a fixed second one would only confuse
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # photos are decoded in parallel instead; each thread has buffers of its own


def is_suffix_of(path: str, format_name: str) -> bool:
    """Whether a name may belong to a file of this format: a suffix of another image format may not."""
    named = _suffixes().get(PurePath(path).suffix.lower(), format_name)
    # A camera's MPO is a JPEG file with more behind it, and a DIB is a BMP without its first bytes.
    return not format_name or _FAMILIES.get(named, named) == _FAMILIES.get(format_name, format_name)


@cache
def _suffixes() -> dict[str, str]:
    return Image.registered_extensions() | dict.fromkeys(HEIF_SUFFIXES, "HEIF")


def open_image(file: Path | BinaryIO) -> Image.Image:
    """Open a photo of a known format, whatever its name, and decode nothing yet: `to_rgb` and `to_luma` do.

    Raises:
        OSError, ValueError, SyntaxError: it is not a photo in one of the formats.
    """
    start = start_of(file)
    return open_heif(file) if is_heif(start) else Image.open(file, formats=FORMATS)


def reduce_draft(image: Image.Image, shorter_side: int | None) -> None:
    """Let a larger JPEG be decoded at 1/2, 1/4 or 1/8 of its size, but not below this; other formats stay whole."""
    if shorter_side and min(image.size) > shorter_side:
        factor = shorter_side / min(image.size)
        image.draft(None, (ceil(image.width * factor), ceil(image.height * factor)))


def load_rgb(path: Path | BinaryIO, *, shorter_side: int | None = None) -> np.ndarray:
    """Return an image as a person sees it: upright by its EXIF orientation, RGB, the first frame, on white.

    Args:
        path: a file that `inspect` found no problem with (nothing limits its size here), or its contents as a stream.
        shorter_side: pixels that are enough, as for `reduce_draft`.

    Returns:
        uint8, shape (height, width, 3), values 0 to 255.

    Raises:
        OSError, ValueError: the file is not a readable image.
    """
    with open_image(path) as image:
        reduce_draft(image, shorter_side)
        return to_rgb(image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Return the pixels of an opened image as `load_rgb` does; ValueError if they have no agreed range."""
    _decode(image)
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    for (left, top, right, bottom), part in _parts(image):
        rgb[top:bottom, left:right] = np.asarray(part)
    return rgb


def to_luma(image: Image.Image) -> Image.Image:
    """Return what Pillow makes of `to_rgb` in the mode "L", from one byte a pixel instead of three."""
    _decode(image)
    luma = Image.new("L", image.size)
    for box, part in _parts(image):
        luma.paste(part.convert("L"), box)
    return luma


def start_of(file: Path | BinaryIO) -> bytes:
    """Return the first bytes of a file, which tell HEIC from the rest."""
    if isinstance(file, Path):
        with file.open("rb") as stream:
            return stream.read(_START)
    start = file.read(_START)
    file.seek(0)
    return start


def _decode(image: Image.Image) -> None:
    """Decode the first frame, or the primary one of HEIC, and turn it upright."""
    promised = image.width * image.height
    if image.format != "HEIF":  # whose first picture may be another than the one that is meant
        image.seek(0)
    image.load()
    if image.width * image.height > promised:
        raise ValueError(f"it holds {image.width} x {image.height} pixels, more than its header says")
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers with no agreed range; save it with 8 or 16 bits")


def _parts(image: Image.Image) -> Iterator[tuple[tuple[int, int, int, int], Image.Image]]:
    """Yield a decoded image part by part, as box and RGB pixels: each step below takes memory for one part only."""
    width, height = image.size
    columns = min(width, _PART_PIXELS)
    rows = _PART_PIXELS // columns
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            box = left, top, min(left + columns, width), min(top + rows, height)
            yield box, _rgb(image.crop(box))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits a pixel: Pillow's own conversion clips at 255 instead of scaling.
        grey = np.asarray(image).astype(np.int64)
        image = Image.fromarray((np.clip(grey, 0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


@dataclass(frozen=True, slots=True)
class Threads:
    """How many photos are worked on at a time, and who is told how far it is."""

    workers: int  # 0 means one per core that this process may use
    on_progress: Callable[[int, int], None] = lambda done, total: None  # called with what is done and the total

    @property
    def count(self) -> int:
        """How many there are."""
        return self.workers or _cores()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `function(item)` in the order of `items`, several at a time, never more than a few dozen ahead.

        Pillow and hashlib release the interpreter's lock while they work, so threads use all cores.
        `ThreadPoolExecutor.map` alone would read everything ahead and hold every result in memory.
        """
        workers = self.count
        pool = ThreadPoolExecutor(workers, thread_name_prefix="regraft")
        try:
            waiting = iter(items)
            running = deque(pool.submit(function, item) for item in islice(waiting, 8 * workers))
            while running:
                yield running.popleft().result()
                running.extend(pool.submit(function, item) for item in islice(waiting, 1))
        except BaseException:
            # Whoever stops a run waits neither for what has not begun, nor for the photo that each thread is at.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()


def _cores() -> int:
    # A container or a scheduler may allow fewer cores than the machine has.
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return len(allowed) or os.cpu_count() or 1


def is_heif(start: bytes) -> bool:
    """Whether a file that begins with these bytes (64 are enough) says that it is HEIC."""
    if start[4:8] != b"ftyp":
        return False
    # The box of type ftyp, ISO/IEC 14496-12, section 4.3: size, type, major brand, version, compatible brands.
    major, end = start[8:12], int.from_bytes(start[:4], "big")
    others = {start[position : position + 4] for position in range(16, min(end, len(start)), 4)}
    return major in _BRANDS or (major == _CONTAINER and not _BRANDS.isdisjoint(others))


def open_heif(file: Path | BinaryIO) -> Image.Image:
    """Open a photo and decode nothing yet; its format is called HEIF.

    Raises:
        ValueError: the library is not installed.
        SyntaxError: the container is damaged.
    """
    try:
        # Registered with Pillow, it would be tried on files of any format, wherever this process opens one.
        from pi_heif import options
        from pi_heif.as_plugin import HeifImageFile
    except ImportError:
        raise ValueError("HEIC needs the library pi-heif: `pip install pi-heif`, or save the photo as JPEG") from None
    options.DECODE_THREADS = 1  # photos are decoded in parallel instead
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    return HeifImageFile(file)


@cache
def heif_version() -> str:
    """Return the version of the library, which decides the pixels of HEIC photos and no others."""
    try:
        return f"pi-heif {metadata.version('pi-heif')}"
    except metadata.PackageNotFoundError:
        return "none"
