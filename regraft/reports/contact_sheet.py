"""A tile (a thumbnail with its caption), and a sheet of them as one picture for Markdown."""

from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a page of words needs none of them
    import numpy as np
    from PIL import Image, ImageFont

SIDE = 112  # pixels of a thumbnail
_PER_ROW = 8
_CAPTION, _GAP = 34, 6  # pixels of a sheet
_JPEG_QUALITY = 80


@dataclass(frozen=True, slots=True)
class Tile:
    """A thumbnail with its caption."""

    pixels: "np.ndarray"  # uint8 RGB, shape (height, width, 3)
    caption: str
    beside: tuple["np.ndarray", ...] = ()  # further pictures of the same photo, of the same shape

    @property
    def pictures(self) -> tuple["np.ndarray", ...]:
        """The thumbnail and what is shown beside it."""
        return (self.pixels, *self.beside)


def draw_sheet(groups: list[tuple[str, list[Tile]]]) -> bytes:
    """Return captioned thumbnails as one JPEG; a group that has a name has a row of its own."""
    from PIL import Image, ImageDraw

    rows: list[list[tuple[np.ndarray, str]]] = []
    for name, tiles in groups:
        texts = [name, *[""] * len(tiles)] if name else [tile.caption for tile in tiles]
        strips = [
            [(tile.pixels, text), *((pixels, "") for pixels in tile.beside)]
            for tile, text in zip(tiles, texts, strict=False)
        ]
        per_row = _PER_ROW // max(map(len, strips), default=1)
        rows += [list(chain(*strips[start : start + per_row])) for start in range(0, len(strips), per_row)]
    font, step = _font(12), SIDE + _CAPTION + _GAP
    sheet = Image.new("RGB", (_PER_ROW * (SIDE + _GAP), max(1, len(rows)) * step), "white")
    draw = ImageDraw.Draw(sheet)
    for row, cells in enumerate(rows):
        for column, (pixels, text) in enumerate(cells):
            x, y = column * (SIDE + _GAP), row * step
            draw.multiline_text((x + 2, y + 2), _short_lines(text), fill="black", font=font)
            sheet.paste(Image.fromarray(pixels).resize((SIDE, SIDE)), (x, y + _CAPTION))
    if not rows:
        draw.text((4, 4), "none", fill="black", font=font)
    return _saved(sheet)


def jpeg_of(pixels: "np.ndarray") -> bytes:
    """Return a picture as a JPEG file."""
    from PIL import Image

    return _saved(Image.fromarray(pixels))


def printable(text: str) -> str:
    """Return text in which what has no shape, such as a control character, is a replacement character."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def cut(text: str, length: int) -> str:
    """Return at most `length` letters of a text."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _short_lines(text: str) -> str:
    return "\n".join(cut(printable(line), 17) for line in text.split("\n")[:2])


def _saved(image: "Image.Image") -> bytes:
    # A tenth of a PNG: Prefect drops events above 1.5 MB from its stream.
    file = BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _font(size: int) -> "ImageFont.FreeTypeFont":
    # matplotlib's DejaVu Sans has the letters of most alphabets; Pillow's own font has Latin ones only.
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
