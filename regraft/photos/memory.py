"""Memory that photos take: how much one needs, and one budget for all that are worked on at a time.

A photo of 120 megapixels needs 2 GB while it is decoded and classified. So threads wait for each other before they
decode, and not only for a free core.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from regraft.photos.images import open_image, reduce_draft

# Bytes a pixel that a photo takes at most beside the bytes of its file, measured by `benchmarks.checks.memory`.
# 18 is what ONNX Runtime takes for the preprocessing of model.onnx (the photo, its centre square, that square in
# float32); decoders take less, except for these.
_BYTES_PER_PIXEL = {"WEBP": 20, "AVIF": 20, "HEIF": 24, "JPEG2000": 30}
_BYTES_OF_OTHERS = 18
# Of the largest photo that validate_data.max_pixels allows. Most formats need less; a JPEG 2000 may have four fifths as
# many pixels.
LARGEST_BYTES_PER_PIXEL = 26
_TILE_SIZE = (322, 323)  # tag numbers of width and length, TIFF 6.0, section 15
_CGROUPS = Path("/proc/self/cgroup")
_LIMITS = {
    "": (Path("/sys/fs/cgroup"), "memory.max"),
    "memory": (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
}


def decoded_pixels(image: Image.Image) -> int:
    """Return the pixels that an opened image has, or the largest of the tiles that it is made of.

    A TIFF of 16 x 16 pixels may consist of one tile of 30,000 x 30,000, all of which is decoded.
    """
    tile = 0
    if isinstance(image, TiffImageFile):
        width, length = (image.tag_v2.get(tag, 0) for tag in _TILE_SIZE)
        tile = width * length if isinstance(width, int) and isinstance(length, int) else 0
    return max(image.width * image.height, tile)


def bytes_needed(image: Image.Image, file_bytes: int) -> int:
    """Return the memory that an opened image takes at most while it is decoded and classified."""
    return file_bytes + decoded_pixels(image) * _BYTES_PER_PIXEL.get(image.format or "", _BYTES_OF_OTHERS)


def memory_of(contents: bytes, *, shorter_side: int | None) -> int:
    """Return what `bytes_needed` says of a file that has been inspected; `shorter_side` as for `load_rgb`."""
    with open_image(BytesIO(contents)) as image:
        reduce_draft(image, shorter_side)
        return bytes_needed(image, len(contents))


class Budget:
    """Bytes that photos may take at a time."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._taken = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def take(self, needed: int) -> Iterator[None]:
        """Wait until so many bytes are free; a photo that needs more than there are goes alone."""
        # Whoever waits keeps its turn: else small photos would overtake a large one for ever.
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + needed <= self.total)
            self._taken += needed
        try:
            yield
        finally:
            with self._changed:
                self._taken -= needed
                self._changed.notify_all()


def _allowed_memory() -> int:
    """Bytes of memory that this process may use: those of the machine, or of the groups that the kernel put it into."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for kind, path in _cgroups():
        root, file = _LIMITS[kind]
        # A container sees its own group as the root, whatever the path; elsewhere each group on the way has a limit.
        for folder in (root / path, *(root / path).parents):
            limit = folder / file
            if folder.is_relative_to(root) and limit.exists() and (text := limit.read_text().strip()).isdigit():
                sizes.append(int(text))  # "max" is none
    return min(sizes)


def _cgroups() -> list[tuple[str, str]]:
    """Return the kind of each group that may limit memory ("memory" in version 1, "" in version 2), and its path."""
    try:
        lines = _CGROUPS.read_text().splitlines()
    except OSError:  # Linux only
        return []
    groups = (line.split(":", 2) for line in lines)
    return [(kind, path.lstrip("/")) for _, kind, path in groups if kind in _LIMITS]


# Of this process and its inspectors: half of what it may use, since the rest of a run takes memory as well. Whoever
# waits to decode may hold the bytes of a file, and whoever decodes waits for nothing.
FILE_MEMORY = Budget(_allowed_memory() // 8)
PHOTO_MEMORY = Budget(_allowed_memory() * 3 // 8)
