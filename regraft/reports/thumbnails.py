"""Thumbnails of photos: the centre squares, drawn by other processes, or the pixels that the network is given."""

from functools import partial

import numpy as np
from PIL import Image

from regraft.errors import RegraftError
from regraft.files import sha256_of
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads
from regraft.photos.inspectors import Inspectors
from regraft.photos.preparation import Preparation
from regraft.reports.contact_sheet import SIDE, Tile

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
