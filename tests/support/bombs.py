"""Small files that want much memory."""

import struct
import zlib
from functools import cache

_PNG_CHANNELS = {0: 1, 2: 3, 6: 4}  # by colour type: grey, RGB, RGBA


@cache
def png(width: int, height: int, *, bits: int = 8, colour: int = 2) -> bytes:
    """Return a black PNG, a thousandth of its pixels' size, from which nothing has to be decoded to write it."""
    row = bytes(1 + _PNG_CHANNELS[colour] * bits * width // 8)
    compressor = zlib.compressobj(9)
    pixels = b"".join([*(compressor.compress(row) for _ in range(height)), compressor.flush()])
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, contents) for kind, contents in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


def icon(side: int) -> bytes:
    """Return an icon that says 16 x 16 and holds a PNG of this side."""
    inside = png(side, side)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


def tiled_tiff(tile: int) -> bytes:
    """Return a grey TIFF of 16 x 16 pixels that is one compressed tile of this side."""
    contents = zlib.compress(bytes(tile * tile), 9)
    contents += b"\0" * (len(contents) % 2)
    # Width, length, bits, compression (deflate), black is zero, samples, tile width and length, tile offset and bytes:
    # TIFF 6.0, sections 3 and 15.
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: len(contents)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = struct.pack("<2sHI", b"II", 42, 8 + len(contents))
    return start + contents + struct.pack("<H", len(tags)) + entries + bytes(4)


def png_with_exif_of_many_numbers(count: int) -> bytes:
    """Return a PNG of 9 x 9 pixels whose EXIF orientation is many numbers, each of which becomes 32 bytes and more."""
    entry = struct.pack("<HHHII", 1, 0x0112, 3, count, 26)  # one entry: orientation, type SHORT, at byte 26
    exif = struct.pack("<2sHI", b"II", 42, 8) + entry + bytes(4) + b"\1\4" * count
    picture = png(9, 9)
    start = picture.index(b"IDAT") - 4
    return picture[:start] + _chunk(b"eXIf", exif) + picture[start:]


def _chunk(kind: bytes, contents: bytes) -> bytes:
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))
