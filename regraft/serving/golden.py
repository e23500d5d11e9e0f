"""The golden photo: a picture and the answer that a model must give to it on every machine.

`golden.json` lies beside the model in production. It holds the picture (PNG, RGB, not square, so that cropping and
resizing are tested too), the answer of the model where it was promoted, and the tolerance on another machine.

Regraft draws the picture: no photo of yours leaves with a model. The model is unsure about such a picture, and an
unsure answer moves when anything before it does. Measured on two models with eight pictures each: the same arithmetic
in another order moves a probability by at most 4e-7, a resize by Pillow by 7e-4 to 7e-3, swapped colours by 2e-2 to
2e-1.
"""

import base64
import json
import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from regraft.core.errors import RegraftError
from regraft.core.files import write_text
from regraft.serving.shipped_model import ShippedModel, run_session, start_session

FILE = "golden.json"
_WIDTH, _HEIGHT = 320, 240
_OCTAVES = (4, 8, 16, 32, 64, 160, 320)  # cells from left to right
_LONGEST = 10_000_000  # bytes of golden.json
_MOST_PIXELS = 4_000_000
_LEAST, _MOST = 1e-4, 1e-2  # tolerance


@dataclass(frozen=True, slots=True)
class Golden:
    """A picture, and the answer of a model to it."""

    model: str  # SHA-256 of the model
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


def write_golden(model: Path, *, pictures: int = 8) -> None:
    """Write golden.json beside a model, unless the one there is of this model already.

    Of the pictures drawn, the one that the model is least sure about becomes the golden photo. Another machine adds up
    in another order. The same graph without optimisations shows how much that can change; ten times that difference is
    the tolerance.

    Args:
        model: a file that Regraft exported.
        pictures: number of pictures to draw, 1 or more.

    Raises:
        RegraftError: the file is no model that Regraft exported, or there is no room.
    """
    shipped = ShippedModel(model)
    try:
        known = read_golden(model.parent)
    except RegraftError:
        known = None
    if known and known.model == shipped.digest:
        return
    photos = [draw(seed) for seed in range(pictures)]
    answers = [shipped.ask(photo) for photo in photos]
    chosen = int(np.argmin([answer.probabilities.max() for answer in answers]))
    photo, answer = photos[chosen], answers[chosen]
    (plain,) = run_session(start_session(shipped.contents, is_optimised=False), photo, ["probabilities"])
    tolerance = min(_MOST, max(_LEAST, 10 * float(np.abs(plain - answer.probabilities).max())))
    png = BytesIO()
    Image.fromarray(photo).save(png, "PNG")
    golden = {
        "model_sha256": shipped.digest,
        "class_name": shipped.class_names[int(answer.probabilities.argmax())],
        "class_names": shipped.class_names,
        "probabilities": [_nine_digits(value) for value in answer.probabilities],
        "novelty": None if answer.novelty is None else _nine_digits(answer.novelty),
        "tolerance": float(f"{tolerance:.1g}"),
        "picture": "data:image/png;base64," + base64.b64encode(png.getvalue()).decode(),
    }
    write_text(model.with_name(FILE), json.dumps(golden, indent=2, ensure_ascii=False) + "\n")


def read_golden(folder: Path) -> Golden | None:
    """Return the golden photo of a folder; None without golden.json.

    Raises:
        RegraftError: the file is not as `write_golden` writes it.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return _checked(json.loads(_contents(path)))
    except (ArithmeticError, LookupError, OSError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RegraftError(
            f"{path} is damaged ({type(error).__name__} {reason}). Copy it from where it was written, or remove it: "
            f"`regraft promote` writes it again."
        ) from None


def _checked(said: Any) -> Golden:
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
    png = base64.b64decode(said["picture"].removeprefix("data:image/png;base64,"), validate=True)
    with Image.open(BytesIO(png), formats=["PNG"]) as picture:
        if picture.width * picture.height > _MOST_PIXELS or picture.mode != "RGB":
            raise ValueError(f"picture must be RGB with at most {_MOST_PIXELS} pixels")
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
