"""HEIC, the format of phones' photos, decoded by libheif; the library is loaded only where there is such a photo.

libheif applies the rotation that the container asks for. The orientation in the EXIF data says the same once more, and
is ignored. The primary picture counts: thumbnails, depth maps and the other pictures of a burst do not.
"""

from functools import cache
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

from PIL import Image

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
# Brands of still pictures that are coded with HEVC, ISO/IEC 23008-12, annex B.4; "mif1" may hold any other coding too.
_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis"})
_CONTAINER = b"mif1"


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
