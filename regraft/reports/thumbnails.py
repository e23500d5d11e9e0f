"""Thumbnails of photos, drawn by other processes."""

from functools import partial

import numpy as np

from regraft.core.errors import RegraftError
from regraft.core.files import sha256_of
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads
from regraft.photos.inspectors import Inspectors
from regraft.reports.contact_sheet import SIDE, Tile

_WHOLE_SIDE = 160  # pixels of the longer side of a whole photo
BLANK = np.full((SIDE, SIDE, 3), 128, np.uint8)


def thumbnails(
    dataset: Dataset, captions: dict[str, str], threads: Threads, limits: DecodeLimits, *, are_whole: bool = False
) -> list[Tile]:
    """Return thumbnails of photos of the data set, in the order of `captions`.

    Args:
        dataset: holds the photos.
        captions: by path.
        threads: that wait for the processes which draw them.
        limits: of drawing one.
        are_whole: the whole photos and somewhat larger, not their centre squares.
    """
    rows = dataset.rows[dataset.rows.path.isin(list(captions))]
    photos = {photo.path: photo for photo in dataset.with_rows(rows).photos()}
    with Inspectors(limits) as inspectors:
        draw = partial(_drawn, inspectors, dataset, are_whole)
        pixels = list(threads.map(draw, (photos.get(path) for path in captions)))
    return [Tile(square, caption) for square, caption in zip(pixels, captions.values(), strict=True)]


def _drawn(inspectors: Inspectors, dataset: Dataset, is_whole: bool, photo: Photo | None) -> np.ndarray:
    """Draw a photo by another process; one that was removed or replaced since the run, or is out of reach, is grey."""
    side = _WHOLE_SIDE if is_whole else SIDE
    if photo is None:
        return BLANK
    try:
        with dataset.file_of(photo) as path:
            is_same = sha256_of(path) == photo.digest
            square = inspectors.thumbnail(path, side=side, is_square=not is_whole) if is_same else None
    except (RegraftError, OSError):
        return BLANK
    return BLANK if square is None else square
