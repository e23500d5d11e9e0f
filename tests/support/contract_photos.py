"""One photo in every form in which it may reach a client, and the pixels that the model has to be given of each."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_ORIENTATION = 0x0112  # tag number, Exif 2.3, section 4.6.4
# How a camera stores an upright picture, by EXIF orientation: what row 0 and column 0 are.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}
# What turns the stored pixels back.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = STORED | {6: STORED[8], 8: STORED[6]}


@dataclass(frozen=True, slots=True)
class Form:
    """A photo in one form."""

    suffix: str
    contents: bytes
    pixels: np.ndarray | None  # uint8 RGB, upright, (height, width, 3); None of what has to be refused


def forms_of(rgb: np.ndarray) -> dict[str, Form]:
    """Return a photo, uint8 (height, width, 3), in every form, by what is special about it."""
    forms = {f"EXIF orientation {number}": _oriented(rgb, number) for number in STORED}
    forms |= _jpegs(rgb) | _with_alpha(rgb) | _deep(rgb) | _with_palette(rgb)
    return forms | {"animated GIF": _animated(rgb)} | _damaged(rgb)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return a picture as a file."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(contents: bytes) -> np.ndarray:
    """Return what Pillow alone makes of a file: right for pictures of 8 bits without transparency."""
    with Image.open(BytesIO(contents)) as image:
        return np.asarray(image.convert("RGB"))


def png(rows: np.ndarray, colour: int) -> bytes:
    """Return a PNG of 16 bits a channel, which Pillow writes of grey pixels only.

    Args:
        rows: uint16, (height, width, channels).
        colour: type of the pixels: 2 RGB, 4 grey with alpha, 6 RGBA (PNG, third edition, section 11.2.1).
    """
    height, width = rows.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines, 1)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part)) for name, part in chunks
    )


def display_p3() -> bytes:
    """Return the colour profile that phones put into their photos: sRGB's with other primaries."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {b"rXYZ": (0.51512, 0.2412, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189)}
    primaries[b"bXYZ"] = (0.1571, 0.06657, 0.78407)
    (count,) = struct.unpack_from(">I", profile, 128)  # the table of tags, ICC.1:2022, section 7.3
    for entry in range(count):
        name, start, _ = struct.unpack_from(">4sII", profile, 132 + 12 * entry)
        if name in primaries:
            struct.pack_into(">3i", profile, start + 8, *(round(value * 2**16) for value in primaries[name]))
    return bytes(profile)


def _oriented(rgb: np.ndarray, orientation: int) -> Form:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](rgb)))
    contents = encoded(stored, "JPEG", quality=95, exif=exif)
    return Form("jpg", contents, np.ascontiguousarray(_UPRIGHT[orientation](decoded(contents))))


def _jpegs(rgb: np.ndarray) -> dict[str, Form]:
    image = Image.fromarray(rgb)
    files = {
        "JPEG 4:4:4": encoded(image, "JPEG", quality=95, subsampling=0),
        "JPEG 4:2:0": encoded(image, "JPEG", quality=95, subsampling=2),
        "progressive JPEG": encoded(image, "JPEG", quality=95, progressive=True),
        "grey JPEG": encoded(image.convert("L"), "JPEG", quality=95),
        "CMYK JPEG": encoded(image.convert("CMYK"), "JPEG", quality=95),
        "JPEG with the profile Display P3": encoded(image, "JPEG", quality=95, icc_profile=display_p3()),
    }
    return {name: Form("jpg", contents, decoded(contents)) for name, contents in files.items()}


def _with_alpha(rgb: np.ndarray) -> dict[str, Form]:
    alpha = np.broadcast_to(np.linspace(0, 255, rgb.shape[1]).astype(np.uint8), rgb.shape[:2])
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    rgba, la, grey_rgb = np.dstack([rgb, alpha]), np.dstack([grey, alpha]), np.dstack([grey] * 3)
    return {
        "PNG": Form("png", encoded(Image.fromarray(rgb), "PNG"), rgb),
        "grey PNG": Form("png", encoded(Image.fromarray(grey), "PNG"), grey_rgb),
        "PNG with alpha": Form("png", encoded(Image.fromarray(rgba), "PNG"), _on_white(rgb, alpha)),
        "grey PNG with alpha": Form("png", encoded(Image.fromarray(la), "PNG"), _on_white(grey_rgb, alpha)),
        "WebP with alpha": Form("webp", encoded(Image.fromarray(rgba), "WEBP", lossless=True), _on_white(rgb, alpha)),
    }


def _on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.round(rgb * share + 255 * (1 - share)).astype(np.uint8)


def _deep(rgb: np.ndarray) -> dict[str, Form]:
    """16 bits a channel; 8 bits of them count, so the low byte is anything."""
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    deep = (grey.astype(np.uint16) << 8) + grey  # 257 times as much
    grey_rgb = np.dstack([grey] * 3)
    return {
        "16-bit grey PNG": Form("png", encoded(Image.fromarray(deep), "PNG"), grey_rgb),
        "16-bit grey TIFF": Form("tif", encoded(Image.fromarray(deep), "TIFF"), grey_rgb),
        "16-bit RGB PNG": Form("png", png(rgb.astype(np.uint16) * 257, 2), rgb),
    }


def _with_palette(rgb: np.ndarray) -> dict[str, Form]:
    image = Image.fromarray(rgb).quantize(255)
    pixels = np.asarray(image.convert("RGB"))
    indices = np.asarray(image)
    clear = int(np.bincount(indices.ravel()).argmax())
    on_white = np.where((indices == clear)[..., None], np.uint8(255), pixels)
    black = Image.fromarray(rgb).convert("1")
    return {
        "palette PNG": Form("png", encoded(image, "PNG"), pixels),
        "palette PNG with transparency": Form("png", encoded(image, "PNG", transparency=clear), on_white),
        "GIF": Form("gif", encoded(image, "GIF"), pixels),
        "PNG of 1 bit": Form("png", encoded(black, "PNG"), np.asarray(black.convert("RGB"))),
    }


def _animated(rgb: np.ndarray) -> Form:
    first = Image.fromarray(rgb).quantize(255)
    others = [Image.new("RGB", first.size, colour).quantize(255) for colour in ("red", "blue")]
    return Form("gif", encoded(first, "GIF", save_all=True, append_images=others), np.asarray(first.convert("RGB")))


def _damaged(rgb: np.ndarray) -> dict[str, Form]:
    jpeg, whole = (encoded(Image.fromarray(rgb), kind) for kind in ("JPEG", "PNG"))
    values = Image.fromarray(rgb).convert("L").convert("F")
    return {
        "truncated JPEG": Form("jpg", jpeg[: len(jpeg) // 2], None),
        "truncated PNG": Form("png", whole[: len(whole) // 2], None),
        "TIFF of floating-point numbers": Form("tif", encoded(values, "TIFF"), None),
        "text": Form("jpg", b"no photo", None),
    }
