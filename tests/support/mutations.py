"""Files for fuzzing: photos in every format that Pillow writes and in every size, and what can be damaged in them."""

from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import numpy as np
from PIL import Image

from regraft.photos.images import FORMATS

HEIC = Path(__file__).parents[1] / "data" / "rotated.heic"
# How formats on the allow-list are written: suffix -> options.
ENCODINGS: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 85},
    "progressive.jpg": {"format": "JPEG", "quality": 85, "progressive": True, "subsampling": 0},
    "png": {"format": "PNG", "compress_level": 1},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "dib": {"format": "DIB"},
    "tif": {"format": "TIFF"},
    "lzw.tif": {"format": "TIFF", "compression": "tiff_lzw"},
    "strip.tif": {"format": "TIFF", "compression": "tiff_adobe_deflate", "strip_size": 2**31 - 1},
    "webp": {"format": "WEBP", "quality": 80, "method": 0},
    "avif": {"format": "AVIF", "speed": 10},
    "jp2": {"format": "JPEG2000"},
    "ppm": {"format": "PPM"},
}
_MODES = ("RGB", "L", "LA", "P", "RGBA", "1", "I;16", "CMYK")
_LARGE_SUFFIXES = ("jpg", "progressive.jpg", "png", "gif", "strip.tif", "webp", "jp2")  # small files of many pixels
Mutation = Callable[[bytes, np.random.Generator, bytes], bytes]


def encode(image: Image.Image, suffix: str) -> bytes | None:
    """Return a picture as a file; None if the format knows no such pixels."""
    file = BytesIO()
    try:
        image.save(file, **ENCODINGS[suffix])
    except (OSError, ValueError, KeyError):
        return None
    return file.getvalue()


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return an RGB picture with other pixels."""
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert("L").convert("LA") if mode == "LA" else image.convert(mode)


def choose_mode(random: np.random.Generator) -> str:
    """Draw what pixels a picture has; half of them are RGB."""
    return "RGB" if random.random() < 0.5 else _MODES[random.integers(len(_MODES))]


def large_files(random: np.random.Generator, count: int) -> list[tuple[str, bytes]]:
    """Return files of 1,000 to 12,000 pixels a side, with few colours, so that they are small; each has a suffix."""
    files = []
    for number in range(count):
        suffix = _LARGE_SUFFIXES[number % len(_LARGE_SUFFIXES)]
        most = 3000 if suffix in ("jp2", "webp") else 12_000  # these take a minute to write
        width, height = np.exp(random.uniform(np.log(1000), np.log(most), 2)).astype(int)
        mode = "I;16" if suffix == "png" and number % 2 else "RGB"
        image = Image.linear_gradient("L").resize((int(width), int(height)), Image.Resampling.NEAREST)
        contents = encode(in_mode(image.convert("RGB"), mode), suffix)
        files.append((suffix, contents or b""))
    return files


@cache
def foreign_files() -> dict[str, bytes]:
    """Return a small picture in every format that Pillow writes and that is on no list, by suffix."""
    Image.init()
    suffixes = {name: suffix.lstrip(".") for suffix, name in Image.registered_extensions().items()}
    files = {}
    for name in sorted(Image.SAVE.keys() - {*FORMATS, "MPO"}):
        for mode in ("RGB", "L", "1", "P", "F"):
            file = BytesIO()
            try:
                with catch_warnings(action="ignore"):  # of formats that Pillow will drop
                    in_mode(Image.linear_gradient("L").resize((64, 64)).convert("RGB"), mode).save(file, name)
            except (OSError, ValueError, KeyError, AttributeError):
                continue
            files[suffixes.get(name, name.lower())] = file.getvalue()
            break
    return files


def damage(contents: bytes, random: np.random.Generator, other: bytes) -> bytes:
    """Damage a file in one to three ways; `other` is one that a part may come from."""
    for _ in range(random.integers(1, 4)):
        if contents:
            contents = _MUTATIONS[random.integers(len(_MUTATIONS))](contents, random, other)
    return contents


def _flip_bits(contents: bytes, random: np.random.Generator, _: bytes) -> bytes:
    values = np.frombuffer(contents, np.uint8).copy()
    for position in random.integers(0, len(values), random.integers(1, 64)):
        values[position] ^= 1 << random.integers(8)
    return values.tobytes()


def _overwrite(contents: bytes, random: np.random.Generator, _: bytes) -> bytes:
    start, end = _part(contents, random)
    return contents[:start] + random.bytes(end - start) + contents[end:]


def _cut_out(contents: bytes, random: np.random.Generator, _: bytes) -> bytes:
    start, end = _part(contents, random)
    return contents[:start] + contents[end:]


def _double(contents: bytes, random: np.random.Generator, _: bytes) -> bytes:
    start, end = _part(contents, random)
    return contents[:end] + contents[start:]


def _splice(contents: bytes, random: np.random.Generator, other: bytes) -> bytes:
    position = random.integers(1, max(2, min(len(contents), len(other))))
    return contents[:position] + other[position:]


def _change_header(contents: bytes, random: np.random.Generator, _: bytes) -> bytes:
    position = int(random.integers(0, min(600, len(contents))))
    number = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", random.bytes(4), random.bytes(1)]
    number += [b"\0\0\x20\0", b"\0\x20\0\0", b"\x20\0"]  # 8,192, in either order of bytes
    value = number[random.integers(len(number))]
    return contents[:position] + value + contents[position + len(value) :]


def _truncate(contents: bytes, random: np.random.Generator, _: bytes) -> bytes:
    return contents[: random.integers(0, len(contents))]


def _part(contents: bytes, random: np.random.Generator) -> tuple[int, int]:
    start = int(random.integers(0, len(contents)))
    return start, min(len(contents), start + int(random.integers(1, 400)))


_MUTATIONS: list[Mutation] = [_flip_bits, _overwrite, _cut_out, _double, _splice, _change_header, _truncate]
