"""The data set: one row per image that is used, with its class and its split."""

import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.errors import InvalidData
from regraft.files import replacing
from regraft.images import load_rgb
from regraft.splits import SPLITS, Split, split_of

COLUMNS = {
    "digest": "str",  # SHA-256 of the file's bytes
    "path": "str",  # relative to the data folder
    "class_name": "str",
    "class_index": "int32",
    "split": "str",
}


@dataclass(frozen=True, slots=True)
class Photo:
    """One image of the data set."""

    digest: str  # SHA-256 of the file's bytes
    path: str  # relative to the data folder
    class_name: str
    class_index: int
    split: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """The images that are used: `rows` has the columns of `COLUMNS`, ordered by digest."""

    rows: pd.DataFrame
    class_names: list[str]  # in the order of class_index

    def of(self, *splits: Split) -> "Dataset":
        """Return the images of some splits only."""
        return Dataset(self.rows.loc[self.rows.split.isin(splits)].reset_index(drop=True), self.class_names)

    def photos(self) -> list[Photo]:
        """Return the images one by one, in the order of the rows."""
        return [Photo(*values) for values in zip(*(self.rows[column].tolist() for column in COLUMNS), strict=True)]

    def head(self, count: int) -> "Dataset":
        """Return the first `count` images; ordered by digest, they are as good as drawn at random."""
        return Dataset(self.rows.head(count), self.class_names)

    def __len__(self) -> int:
        return len(self.rows)


def read_photo(raw: Path, photo: Photo, *, shorter_side: int | None = None) -> np.ndarray:
    """Return a photo of the data set as uint8 RGB, shape (height, width, 3), upright and not resized.

    Args:
        raw: the data folder.
        photo: its digest must be that of the file: values are kept under it, and a wrong one would poison the store.
        shorter_side: pixels that are enough, as for `load_rgb`; None for all there are.

    Raises:
        InvalidData: the file is gone, or is not the one that was validated.
    """
    path = raw / photo.path
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise InvalidData(f"{path} cannot be read any more: {error.strerror}. Run again.") from None
    if hashlib.sha256(contents).hexdigest() != photo.digest:
        raise InvalidData(f"{path} has changed since it was validated. Run again, and it is seen as new.")
    return load_rgb(BytesIO(contents), shorter_side=shorter_side)


def build_dataset(manifest: pd.DataFrame, *, val_share: float, test_share: float) -> Dataset:
    """Give every usable image a class index and a split.

    A split that the user gave is kept. An image without one, and a training image where the user's val or test is
    missing altogether, is placed by the content of its group (`regraft.splits`, `regraft.duplicates`), so copies and
    near-duplicates are in one split. Where the user's own splits part them, those in test stay, those in val only if
    none is in test, and the others are left out: nothing is trained on that is tested. Copies of one file under one
    label in one split count once.

    Raises:
        InvalidData: fewer than two classes, a class without training images, or no image at all in val or test.
    """
    used = manifest[manifest.verdict == "use"]
    class_names = sorted(used.label.unique())
    if len(class_names) < 2:
        raise InvalidData(
            f"at least two classes are needed to train a classifier. Found {len(class_names)}: "
            f"{', '.join(class_names) or 'no usable image at all'}. Add a folder of photos for each further class."
        )
    given = set(used.split.dropna())

    def split(group: str, user_split: Any) -> Split:  # pandas says NaN where there is none
        if user_split in ("val", "test"):
            return user_split
        kept = user_split == "train"
        return split_of(
            group,
            val_share=0 if kept and "val" in given else val_share,
            test_share=0 if kept and "test" in given else test_share,
        )

    rows = pd.DataFrame(
        {
            "digest": used.digest,
            "path": used.path,
            "class_name": used.label,
            "class_index": pd.Categorical(used.label, categories=class_names).codes,
            "split": list(map(split, used.group.tolist(), used.split.tolist())),
        }
    ).astype(COLUMNS)
    protection = rows.split.map({split: place for place, split in enumerate(SPLITS)})  # train, val, test
    rows = rows[protection == protection.groupby(used.group).transform("max")]
    rows = rows.sort_values(["digest", "class_index", "split", "path"]).drop_duplicates(
        ["digest", "class_index", "split"]
    )
    dataset = Dataset(rows.reset_index(drop=True), class_names)
    _check_splits(dataset, given)
    return dataset


def split_table(dataset: Dataset) -> pd.DataFrame:
    """Return the number of images per class (rows) and split (columns train, val, test)."""
    counts = pd.crosstab(dataset.rows.class_name, dataset.rows.split)
    return counts.reindex(index=dataset.class_names, columns=list(SPLITS), fill_value=0)


def dataset_report(layout: str, manifest: pd.DataFrame, dataset: Dataset) -> dict[str, Any]:
    """Return reports/dataset.json: where the images went."""
    counts = split_table(dataset)
    used = manifest[manifest.verdict == "use"]
    # Copies have a row in the data set; of these the group has one, in a split that is better protected.
    parted = used[~used.digest.isin(dataset.rows.digest)]
    return {
        "layout": layout,
        "images": len(dataset),
        "copies_left_out": len(used) - len(dataset) - len(parted),
        "near_duplicates_left_out": parted.path.tolist(),
        "splits": {split: int(counts[split].sum()) for split in SPLITS},
        "classes": {name: {split: int(row[split]) for split in SPLITS} for name, row in counts.iterrows()},
        "not_in_test": [str(name) for name, row in counts.iterrows() if row["test"] == 0],
    }


def write_dataset(path: Path, dataset: Dataset) -> None:
    """Write the data set as Parquet; class names travel in the table's `attrs`."""
    dataset.rows.attrs = {"class_names": dataset.class_names}
    with replacing(path) as temporary:
        dataset.rows.to_parquet(temporary, index=False)


def read_dataset(path: Path) -> Dataset:
    """Return what `write_dataset` wrote."""
    rows = pd.read_parquet(path)
    return Dataset(rows, list(rows.attrs["class_names"]))


def _check_splits(dataset: Dataset, given: set[str]) -> None:
    """Every class must be trained on, and val and test must not be empty; a class may be absent from val or test."""
    counts = split_table(dataset)
    untrained = [f"'{name}' ({row.sum()} image(s))" for name, row in counts.iterrows() if row["train"] == 0]
    if untrained:
        raise InvalidData(
            f"every class needs images to train on. {len(untrained)} class(es) have none in train: "
            f"{', '.join(untrained[:10])}. Add images of these classes{' to the train folder' if given else ''}."
        )
    for split in ("val", "test"):
        if counts[split].sum() == 0:
            raise InvalidData(
                f"{split} has no image, out of {len(dataset)}. Add images, raise preprocess.{split}_share, or give the "
                f"split yourself in folders train, val and test."
            )
