"""Which client of model.onnx answers differently where: one photo in every form, through every way to read it.

    python -m benchmarks.clients MODEL [PHOTOS] [--photos N] [--also NAME=COMMAND]... [--markdown]

Reference: Regraft's own reader, `load_rgb`, by which the model was trained. Each cell is the largest difference of a
probability from it, over N photos, and of how many the class is another one. OpenCV and onnxruntime-extensions have a
column where they are installed; regraft.serving needs no more, so a virtual environment with these, NumPy, Pillow,
pi-heif and onnx runs this file.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.client_columns import REFERENCE, Client, clients_of
from regraft.photos.images import load_rgb
from tests.support.contract_photos import Form, forms_of
from tests.support.machine import describe_machine

_SAME = 1e-4  # clients that print four digits, and the arithmetic of one graph in two sessions
_SIDE = 512  # pixels of the longer side of a photo: palettes and PNG files of more take minutes


@dataclass(frozen=True, slots=True)
class Cell:
    """What a client says of a form, beside the reference."""

    photos: int
    refused: int  # photos that it cannot read, although they can be read, or the other way round
    largest_difference: float  # of a probability, over those that both read
    other_class: int  # photos whose most probable class is another one
    reason: str  # of the last refusal

    def words(self, is_to_be_read: bool) -> str:
        """Say it in a few words."""
        if not is_to_be_read:
            return "refused" if not self.refused else "**answers**"
        if self.refused == self.photos:
            return "**refused**"
        if self.largest_difference <= _SAME and not self.refused:
            return "same"
        words = f"{self.largest_difference:.2g}"
        words += f", {self.other_class} of {self.photos} other" if self.other_class else ""
        return words + (f", {self.refused} refused" if self.refused else "")


def measure(model: Path, photos: list[np.ndarray], commands: dict[str, str]) -> dict[str, dict[str, Cell]]:
    """Return cells by form and client.

    Args:
        model: path of model.onnx.
        photos: uint8 RGB, each (height, width, 3).
        commands: of further clients, by name.
    """
    clients = clients_of(model, commands)
    table: dict[str, dict[str, Cell]] = {}
    all_forms = [forms_of(photo) for photo in photos]
    with tempfile.TemporaryDirectory(prefix="regraft-clients-") as temporary:
        for name in all_forms[0]:
            files = [_write(Path(temporary), number, forms[name]) for number, forms in enumerate(all_forms)]
            answers = {client: [_ask(ask, file) for file in files] for client, ask in clients.items()}
            table[name] = {client: _compare(answers[REFERENCE], answers[client]) for client in clients}
    return table


def _write(folder: Path, number: int, form: Form) -> Path:
    path = folder / f"{number}.{form.suffix}"
    path.write_bytes(form.contents)
    return path


def _ask(client: Client, photo: Path) -> np.ndarray | str:
    try:
        return client(photo)
    except Exception as error:  # libraries raise anything, and this is what is compared
        return " ".join(str(error).split())[:200] or type(error).__name__


def _compare(reference: list[np.ndarray | str], answers: list[np.ndarray | str]) -> Cell:
    refused, largest, other, reason = 0, 0.0, 0, ""
    for expected, found in zip(reference, answers, strict=True):
        if isinstance(expected, str) or isinstance(found, str):
            refused += isinstance(expected, str) != isinstance(found, str)
            reason = found if isinstance(found, str) else reason
            continue
        largest = max(largest, float(np.nanmax(np.abs(expected - found))))
        other += int(expected.argmax() != np.nanargmax(found))
    return Cell(len(reference), refused, largest, other, reason)


def _is_to_be_read(cells: dict[str, Cell]) -> bool:
    return not cells[REFERENCE].reason


def _print_table(table: dict[str, dict[str, Cell]], *, is_markdown: bool) -> None:
    clients = [client for client in next(iter(table.values())) if client != REFERENCE]
    rows = [["", *clients]]
    rows += [
        [form, *(cells[client].words(_is_to_be_read(cells)) for client in clients)] for form, cells in table.items()
    ]
    if is_markdown:
        rows.insert(1, ["---"] * len(rows[0]))
        print("\n".join(f"| {' | '.join(row)} |" for row in rows))
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _load(folder: Path | None, count: int) -> list[np.ndarray]:
    """Return photos of a folder, evenly spread over it; without one, made ones."""
    if folder is None:
        random = np.random.default_rng(0)
        coarse = random.integers(20, 235, (count, 6, 8, 3), np.uint8)
        return [np.asarray(Image.fromarray(each).resize((320, 240), Image.Resampling.BICUBIC)) for each in coarse]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        sys.exit(f"there are no photos in {folder}")
    chosen = [paths[index] for index in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
    photos = []
    for path in chosen:
        image = Image.fromarray(load_rgb(path))
        image.thumbnail((_SIDE, _SIDE))
        photos.append(np.asarray(image))
    return photos


def _result(table: dict[str, dict[str, Cell]]) -> dict[str, Any]:
    return {form: {client: asdict(cell) for client, cell in cells.items()} for form, cells in table.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clients", description="Which client of model.onnx answers differently where."
    )
    parser.add_argument("model", type=Path, help="a model.onnx that Regraft exported")
    parser.add_argument(
        "folder", metavar="PHOTOS", type=Path, nargs="?", help="a folder of photos; without it, made ones"
    )
    parser.add_argument("--photos", type=int, default=20, metavar="N", help="so many of them (default: 20)")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="a further client: COMMAND MODEL PHOTO, which prints what docs/classify.py does, or JSON by class name",
    )
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    arguments = parser.parse_args()
    commands = dict(each.split("=", 1) for each in arguments.also)
    photos = _load(arguments.folder, arguments.photos)
    table = measure(arguments.model, photos, commands)
    print(describe_machine())
    _print_table(table, is_markdown=arguments.markdown)
    print(json.dumps(_result(table)))


if __name__ == "__main__":
    main()
