"""Unusual and broken files, made by code: what a data folder holds after years of phones, scanners and attackers."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 48
USE, QUARANTINE, IGNORE = "use", "quarantine", "ignore"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_odd_files(folder: Path) -> dict[str, str]:
    """Write one file of each kind into a folder, which may not exist yet; return the expected verdict by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, _) in _FILES.items():
        (folder / name).write_bytes(make())
    return {name: verdict for name, (_, verdict) in _FILES.items()}


def _picture(mode: str = "RGB") -> Image.Image:
    """Smooth colours with some noise, so that a file is neither tiny nor all zeros."""
    coarse = np.random.default_rng(5).integers(30, 220, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert(mode)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _jpeg(**options: Any) -> bytes:
    return _encoded(_picture(), "JPEG", quality=90, **options)


def _oriented_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    return _jpeg(exif=exif)


def _sixteen_bit_tiff() -> bytes:
    return _encoded(Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 20), "TIFF")


def _animation() -> bytes:
    frames = [Image.new("P", (SIDE, SIDE), index) for index in range(4)]
    return _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def _png(*chunks: tuple[bytes, bytes], width: int = SIDE, height: int = SIDE) -> bytes:
    """A PNG of RGB pixels with these chunks between its header and its end."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return _PNG_SIGNATURE + b"".join(_chunk(*chunk) for chunk in ((b"IHDR", header), *chunks, (b"IEND", b"")))


def _chunk(kind: bytes, contents: bytes) -> bytes:
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


def _pixels() -> bytes:
    """The compressed rows of a PNG, each with a filter type of 0 before it."""
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.asarray(_picture())))


def _png_with_a_wrong_checksum() -> bytes:
    contents = bytearray(_png((b"IDAT", _pixels())))
    contents[29] ^= 1  # the first byte of the header's checksum
    return bytes(contents)


def _png_whose_stream_breaks_off() -> bytes:
    """Every checksum of the file is right; what is compressed is not."""
    pixels = _pixels()
    return _png((b"IDAT", pixels[: len(pixels) // 2] + b"\xff" * (len(pixels) // 2)))


def _png_with_a_text_that_explodes() -> bytes:
    """A comment of 100 kB that is 100 MB when it is decompressed."""
    return _png((b"zTXt", b"comment\0\0" + zlib.compress(b"a" * 100_000_000)), (b"IDAT", _pixels()))


def _gif(*, width: int = SIDE, height: int = SIDE, palette: bool = True) -> bytes:
    """A GIF whose header says so; its only frame is of one pixel, or as wide as the screen where that is nothing."""
    screen = struct.pack("<HHBBB", width, height, 0x80 if palette else 0, 0, 0)
    colours = bytes([200, 60, 60, 60, 60, 200]) if palette else b""
    frame = struct.pack("<cHHHHB", b",", 0, 0, min(width, 1), 1, 0)
    return b"GIF89a" + screen + colours + frame + b"\x02\x02\x44\x01\x00;"


_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    ".DS_Store": (lambda: b"\0\0\0\1Bud1", IGNORE),
    "Thumbs.db": (lambda: b"\xd0\xcf\x11\xe0", IGNORE),
    "notes.txt": (lambda: b"no image", IGNORE),
    "16bit.tif": (_sixteen_bit_tiff, USE),
    "animation.gif": (_animation, USE),
    "cmyk.jpg": (lambda: _encoded(_picture("CMYK"), "JPEG"), USE),
    "lossless.webp": (lambda: _encoded(_picture(), "WEBP", lossless=True), USE),
    "no_extension": (_jpeg, USE),
    "no_palette.gif": (lambda: _gif(palette=False), USE),
    "orientation_3.jpg": (_oriented_jpeg, USE),
    "really_a_jpeg.png": (_jpeg, USE),
    "bomb.gif": (lambda: _gif(width=65_535, height=65_535), QUARANTINE),
    "bomb.png": (lambda: _png((b"IDAT", _pixels()), width=100_000, height=100_000), QUARANTINE),
    "broken_stream.png": (_png_whose_stream_breaks_off, QUARANTINE),
    "exploding_text.png": (_png_with_a_text_that_explodes, QUARANTINE),
    "truncated.jpg": (lambda: _jpeg()[:-400], QUARANTINE),
    "truncated.png": (lambda: _encoded(_picture(), "PNG")[:-400], QUARANTINE),
    "wrong_checksum.png": (_png_with_a_wrong_checksum, QUARANTINE),
    "zero_bytes.jpg": (lambda: b"", QUARANTINE),
    "zero_width.gif": (lambda: _gif(width=0), QUARANTINE),
}
