"""The mistakes of the shipped file, and where in each photo it saw what."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from regraft.core.errors import InvalidData, RegraftError
from regraft.core.files import read_json, sha256_of
from regraft.export.activation_maps import ActivationMaps, heat
from regraft.photos.dataset import Dataset, Photo
from regraft.reports.contact_sheet import SIDE, Tile
from regraft.reports.sources import Sources
from regraft.reports.thumbnails import thumbnails

_HOT = np.array([255, 72, 0], np.float32)  # where most speaks for a class
_STRONGEST = 0.75  # share of that colour there
_WORDS = (
    "Beside each photo, what speaks for a class more than for the others: in the middle for the one that was named, on "
    "the right for the true one. Each picture has its own scale. The maps are the very sums that make the logits "
    "(class activation maps), so they show what the file computes and are no guess."
)


def mistakes_of(wrong: pd.DataFrame, sources: Sources) -> tuple[list[Tile], str]:
    """Return the first mistakes as thumbnails, and what is shown beside them, or why nothing is.

    Args:
        wrong: path, actual, predicted and confidence, in the order in which they are shown.
        sources: say how many are shown.
    """
    shown, dataset = wrong.head(sources.photos), sources.read_dataset()
    captions = {row.path: f"{row.predicted} {row.confidence:.0%}\nis {row.actual}" for row in shown.itertuples()}
    tiles = thumbnails(dataset, captions, sources.threads, sources.limits)
    try:
        maps = _maps_of(sources)
    except (FileNotFoundError, RegraftError) as error:
        return tiles, f"Where the file looked is not shown: {error}"
    rows = [(row.path, row.predicted, row.actual) for row in shown.itertuples()]
    beside = sources.threads.map(_Overlays(dataset, maps, _photos_of(dataset, list(captions))), rows)
    return [Tile(tile.pixels, tile.caption, pictures) for tile, pictures in zip(tiles, beside, strict=True)], _WORDS


@dataclass(frozen=True, slots=True)
class _Overlays:
    """Draws where a file looked, in the photos of a data set."""

    dataset: Dataset
    maps: ActivationMaps
    photos: dict[str, Photo]  # by path

    def __call__(self, row: tuple[str, str, str]) -> tuple[np.ndarray, ...]:
        """Return a picture for each of the two classes of a row; none of a photo that is gone or another one now."""
        path, *classes = row
        try:
            with self.dataset.opened(self.photos[path]) as rgb:
                _, maps = self.maps(rgb)
                left, top, side = self.maps.square(rgb)
                square = Image.fromarray(rgb[top : top + side, left : left + side])
        except (InvalidData, KeyError, OSError, ValueError):  # the report is still worth reading
            return ()
        square = square.resize((SIDE, SIDE), reducing_gap=2.0)
        return tuple(overlay(square, heat(maps, self.maps.class_names.index(name))) for name in classes)


def overlay(square: Image.Image, strength: np.ndarray) -> np.ndarray:
    """Return a photo in grey with colour where a map is strong.

    Args:
        square: RGB.
        strength: float32, shape (rows, columns), 0 to 1.

    Returns:
        uint8 RGB, of the photo's size.
    """
    size = square.size
    smooth = Image.fromarray(strength.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    share = _STRONGEST * np.clip(np.asarray(smooth), 0, 1)[:, :, None]
    grey = np.asarray(square.convert("L"), np.float32)[:, :, None]
    return ((1 - share) * grey + share * _HOT).round().astype(np.uint8)


def _maps_of(sources: Sources) -> ActivationMaps:
    """Return the maps of the file that the predictions are of."""
    if sha256_of(sources.onnx) != read_json(sources.reports / "export.json", "sha256")["sha256"]:
        raise RegraftError(f"{sources.onnx} is not the file that these figures are about.")
    return ActivationMaps(sources.onnx)


def _photos_of(dataset: Dataset, paths: list[str]) -> dict[str, Photo]:
    rows = dataset.rows[dataset.rows.path.isin(paths)]
    return {photo.path: photo for photo in dataset.with_rows(rows).photos()}
