"""Thumbnails of photos, and a sheet of them as one picture."""

from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from regraft.errors import RegraftError
from regraft.files import sha256_of
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads
from regraft.photos.inspectors import Inspectors
from regraft.photos.preparation import Preparation
from regraft.reports.blocks import Tile

SIDE = 112  # pixels of a thumbnail
_PER_ROW = 8
_CAPTION, _GAP = 34, 6  # pixels of a sheet
_JPEG_QUALITY = 80
_BLANK = np.full((SIDE, SIDE, 3), 128, np.uint8)


def thumbnails(dataset: Dataset, captions: dict[str, str], threads: Threads, limits: DecodeLimits) -> list[Tile]:
    """Return the centre squares of photos of the data set, in the order of `captions`.

    Args:
        dataset: holds the photos.
        captions: what is said of a photo, by its path.
        threads: that wait for the processes which draw them.
        limits: of drawing one.
    """
    rows = dataset.rows[dataset.rows.path.isin(list(captions))]
    photos = {photo.path: photo for photo in dataset.with_rows(rows).photos()}
    with Inspectors(limits) as inspectors:
        draw = partial(_draw_centre, inspectors, dataset)
        pixels = list(threads.map(draw, (photos.get(path) for path in captions)))
    return [Tile(square, caption) for square, caption in zip(pixels, captions.values(), strict=True)]


def prepared_photos(dataset: Dataset, preparation: Preparation, threads: Threads) -> list[Tile]:
    """Return photos as `preparation` gives them to the network, reduced to thumbnails, without captions."""
    draw = partial(_draw_prepared, dataset, preparation)
    return [Tile(square, "") for square in threads.map(draw, dataset.photos())]


def draw_sheet(groups: list[tuple[str, list[Tile]]]) -> bytes:
    """Return captioned thumbnails as one JPEG; a group that has a name has a row of its own."""
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
    return to_jpeg(sheet)


def to_jpeg(image: Image.Image) -> bytes:
    """Return photos as a file. A tenth of a PNG: Prefect drops what is above 1.5 MB from its stream of events."""
    file = BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def printable(text: str) -> str:
    """Return text in which what has no shape, such as a control character, is a replacement character."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def cut(text: str, length: int) -> str:
    """Return at most `length` letters of a text."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _draw_centre(inspectors: Inspectors, dataset: Dataset, photo: Photo | None) -> np.ndarray:
    """Draw a photo by another process; one that was removed or replaced since the run, or is out of reach, is grey."""
    if photo is None:
        return _BLANK
    try:
        with dataset.file_of(photo) as path:
            is_same = sha256_of(path) == photo.digest
            square = inspectors.thumbnail(path, side=SIDE, is_square=True) if is_same else None
    except (RegraftError, OSError):
        return _BLANK
    return _BLANK if square is None else square


def _draw_prepared(dataset: Dataset, preparation: Preparation, photo: Photo) -> np.ndarray:
    try:
        with dataset.opened(photo) as rgb:
            square = preparation(rgb)
    except (RegraftError, OSError, ValueError):  # as above: the report is still worth reading
        return _BLANK
    return np.asarray(Image.fromarray(square).resize((SIDE, SIDE)))


def _short_lines(text: str) -> str:
    return "\n".join(cut(printable(line), 17) for line in text.split("\n")[:2])


def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib's DejaVu Sans has the letters of most alphabets; Pillow's own font has Latin ones only.
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
