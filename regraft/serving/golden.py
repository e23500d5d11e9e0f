"""The golden photo: a picture and the answer that a file must give to it, on whatever machine it is asked.

    golden.png    the picture, RGB, not square, so that cropping and resizing are asked too
    golden.json   what the file said of it where it went into production, and how far another machine may be from that

The picture is drawn by Regraft: no photo of yours leaves with a model. On such a picture a network is unsure, and an
unsure answer moves when anything before it does. Measured on two files with eight pictures each: the same arithmetic in
another order moves it by at most 4e-7, a resize by Pillow by 7e-4 to 7e-3, swapped colours by 2e-2 to 2e-1.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from regraft.errors import RegraftError

FILE, PICTURE = "golden.json", "golden.png"
_WIDTH, _HEIGHT = 320, 240
_OCTAVES = (4, 8, 16, 32, 64, 160, 320)  # cells from left to right
_LONGEST = 10_000_000  # bytes of either file
_MOST_PIXELS = 4_000_000


@dataclass(frozen=True, slots=True)
class Golden:
    """A picture, and what a file says of it."""

    model: str  # SHA-256 of the file
    photo: np.ndarray  # uint8 RGB, shape (height, width, 3)
    class_names: list[str]
    probabilities: np.ndarray  # float64, shape (num_classes,), as decimal numbers of nine digits
    novelty: float | None
    tolerance: float  # of every probability, and of the novelty


def draw(seed: int) -> np.ndarray:
    """Return a picture that has as much of every size of detail as photos have: uint8 RGB, shape (240, 320, 3).

    It is a sum of noise in octaves, each twice as fine and about half as strong: a spectrum of 1/f, that of natural
    images (Field 1987).
    """
    random = np.random.default_rng(seed)
    grey, total = np.full((_HEIGHT, _WIDTH, 3), 128.0), 0.0
    for cells in _OCTAVES:
        noise = random.integers(0, 256, (max(1, cells * _HEIGHT // _WIDTH), cells, 3), np.uint8)
        fine = Image.fromarray(noise).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
        strength = cells**-0.5
        grey += strength * (np.asarray(fine, float) - 128)
        total += strength
    return np.clip(128 + (grey - 128) * 2 / total, 0, 255).round().astype(np.uint8)


def write_golden(folder: Path, golden: Golden) -> None:
    """Write both files into a folder that nobody reads yet."""
    png = BytesIO()
    Image.fromarray(golden.photo).save(png, "PNG")
    (folder / PICTURE).write_bytes(png.getvalue())
    probabilities = [_nine_digits(value) for value in golden.probabilities]
    said = {
        "model_sha256": golden.model,
        "photo": PICTURE,
        "photo_sha256": hashlib.sha256(png.getvalue()).hexdigest(),
        "class_name": golden.class_names[int(golden.probabilities.argmax())],
        "class_names": golden.class_names,
        "probabilities": probabilities,
        "novelty": None if golden.novelty is None else _nine_digits(golden.novelty),
        "tolerance": golden.tolerance,
    }
    (folder / FILE).write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_golden(folder: Path) -> Golden | None:
    """Return what is in a folder; None if there is no golden.json.

    Raises:
        RegraftError: the files are not those that `write_golden` wrote.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        said = json.loads(_contents(path))
        png = _contents(folder / PICTURE)
        if hashlib.sha256(png).hexdigest() != said["photo_sha256"]:
            raise ValueError(f"{PICTURE} has other bytes than {FILE} says")
        return _checked(said, png)
    except (ArithmeticError, LookupError, OSError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RegraftError(
            f"{path} and {PICTURE} beside it are damaged ({type(error).__name__} {reason}). Take the folder from where "
            f"it was written, or let `regraft promote` write it anew."
        ) from None


def _checked(said: Any, png: bytes) -> Golden:
    names, numbers, novelty = said["class_names"], said["probabilities"], said["novelty"]
    if not (isinstance(names, list) and isinstance(numbers, list) and len(names) == len(numbers) > 0):
        raise ValueError("class_names and probabilities must be lists of one length")
    if not all(isinstance(name, str) for name in names):
        raise ValueError("class_names must be texts")
    found = [*numbers, said["tolerance"], *([] if novelty is None else [novelty])]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in found):
        raise ValueError("probabilities, tolerance and novelty must be numbers")
    if not 0 < said["tolerance"] <= 0.1:
        raise ValueError(f"tolerance must be above 0 and at most 0.1, not {said['tolerance']:g}")
    if not isinstance(said["model_sha256"], str):
        raise ValueError("model_sha256 must be a text")
    with Image.open(BytesIO(png), formats=["PNG"]) as picture:
        if picture.width * picture.height > _MOST_PIXELS or picture.mode != "RGB":
            raise ValueError(f"{PICTURE} must be RGB with at most {_MOST_PIXELS} pixels")
        photo = np.asarray(picture)
    return Golden(said["model_sha256"], photo, names, np.array(numbers, float), novelty, said["tolerance"])


def _contents(path: Path) -> bytes:
    if not path.is_file():  # a named pipe would be waited for
        raise OSError(f"{path.name} is no regular file")
    with path.open("rb") as file:
        contents = file.read(_LONGEST + 1)
    if len(contents) > _LONGEST:
        raise ValueError(f"{path.name} is longer than {_LONGEST} bytes")
    return contents


def _nine_digits(value: float) -> float:
    return float(f"{value:.9g}")
