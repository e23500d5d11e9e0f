"""Real photos: those of a folder in any layout, parts of them, and more photos made of them."""

import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.support.projects import HEAD_ONLY, ROOT, run_stage, stages_folder
from regraft.core.params_file import load_params
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads, load_rgb
from regraft.photos.manifest import build_manifest
from regraft.photos.splitting import build_dataset

REAL_PHOTOS = ROOT / "tests" / "data" / "photos"
_KERAS_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "GIF": ".gif", "BMP": ".bmp"}
_SEED = 20261124
_JPEG_QUALITY = 85
_SMALLEST_CROP = 0.85  # of each side


def usable_photos(folder: Path) -> pd.DataFrame:
    """Return the photos of a folder that a run would use: the columns of `regraft.photos.dataset`, paths made absolute.

    They are in an order in which any beginning has the classes and splits in the proportions of the whole, and every
    class in every split comes once before any comes twice.
    """
    with tempfile.TemporaryDirectory(prefix="regraft-photos-") as temporary:
        project = stages_folder(Path(temporary, "stages"), folder, HEAD_ONLY)
        for stage in ("validate_data", "preprocess"):
            run_stage(stage, project, log=Path(temporary, f"{stage}.log"))
        rows = read_dataset(project / "build" / "dataset.parquet", folder).rows
    return spread(rows.assign(path=[str(folder.resolve() / path) for path in rows.path]))


def readable_by_keras(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the photos that Keras' reader knows, with the `suffix` by which it does: it passes over all others."""
    rows = rows.assign(suffix=rows.format.map(_KERAS_SUFFIXES))
    return rows[rows.suffix.notna()].reset_index(drop=True)


def read_folder(folder: Path, *, share: float = 0.1) -> Dataset:
    """Return the data set of a folder, within the limits of params.yaml but unchecked.

    `share` is that of val and that of test where the folder gives no splits.
    """
    settings = load_params(ROOT / "params.yaml").validate_data
    limits = DecodeLimits(settings.max_pixels, settings.max_seconds)
    _, manifest = build_manifest(folder, limits=limits, threads=Threads(0))
    return build_dataset(manifest, folder, val_share=share, test_share=share)


def spread(rows: pd.DataFrame) -> pd.DataFrame:
    """Order rows so that any beginning has the classes and splits in proportion, all of them as soon as possible."""
    groups = rows.groupby(["class_index", "split"]).digest
    place = groups.cumcount() / groups.transform("size")
    return rows.assign(place=place).sort_values(["place", "digest"]).drop(columns="place").reset_index(drop=True)


def hold_back(train: pd.DataFrame, *, rounds: int, share: float) -> list[pd.DataFrame]:
    """Draw a share of the training photos several times, none twice and never the first of a class."""
    count = max(1, round(share * len(train)))
    drawn = train[train.duplicated("class_index")].sample(rounds * count, random_state=_SEED)
    return [drawn.iloc[start : start + count] for start in range(0, len(drawn), count)]


def make_photos(sources: pd.DataFrame, folder: Path, numbers: range, *, longest: int | None = None) -> None:
    """Write one new photo per number as `<class>/<number>.jpg`, each a random crop of the source whose turn it is.

    With `longest` half of the crops are mirrored, and none has a longer side, in pixels.
    """
    class_indexes = sources.class_index.tolist()
    for class_index in set(class_indexes):
        (folder / f"{class_index:03}").mkdir(parents=True, exist_ok=True)

    def make(number: int) -> None:
        path = folder / f"{class_indexes[number % len(sources)]:03}" / f"{number:07}.jpg"
        path.write_bytes(encode_photo(sources, number, longest=longest))

    for _ in Threads(0).map(make, numbers):
        pass


def encode_photo(sources: pd.DataFrame, number: int, *, longest: int | None = None) -> bytes:
    """Return photo `number` as a JPEG file, as `make_photos` writes it; the number is in it, so no two are equal."""
    image = Image.fromarray(load_rgb(Path(sources.path.iloc[number % len(sources)])))
    random = np.random.default_rng([_SEED, number])
    sides = np.array(image.size)
    crop = np.maximum(1, (sides * random.uniform(_SMALLEST_CROP, 1.0, 2)).astype(int))
    left, top = (int(value) for value in random.integers(0, sides - crop + 1))
    width, height = (int(value) for value in crop)
    image = image.crop((left, top, left + width, top + height))
    if longest is not None:
        image.thumbnail((longest, longest), Image.Resampling.BILINEAR)
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image
    file = BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY, comment=str(number).encode())
    return file.getvalue()
