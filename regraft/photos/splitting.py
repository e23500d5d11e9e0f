"""Which split an image belongs to.

The split follows from the image's content alone, so it does not change when other images come, go or are renamed: a
test image of last month never becomes a training image.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from regraft.errors import InvalidData
from regraft.photos.dataset import COLUMNS, SPLITS, Dataset, Split


def split_of(digest: str, *, val_share: float, test_share: float) -> Split:
    """Return the split of the image whose file has this SHA-256.

    The first 60 bits of the digest are a uniform number u in [0, 1): test if u < test_share, val in the next
    `val_share`, else train. Shares are therefore met on average, not exactly: n images give n * share, plus or minus
    about sqrt(n * share).

    Args:
        digest: SHA-256 of the file's bytes, 64 hexadecimal digits.
        val_share: expected share of val, 0 to 1.
        test_share: expected share of test, 0 to 1. With `val_share` it must stay below 1.
    """
    uniform = int(digest[:15], 16) / 16**15
    if uniform < test_share:
        return "test"
    return "val" if uniform < test_share + val_share else "train"


def build_dataset(manifest: pd.DataFrame, folder: Path, *, val_share: float, test_share: float) -> Dataset:
    """Give every usable image a class index and a split.

    A split that the user gave stays. An image without one, and a training image where the user's val or test is
    missing altogether, is placed by the content of its group (`split_of`, `regraft.photos.duplicates`), so copies and
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
        is_given = user_split == "train"
        return split_of(
            group,
            val_share=0 if is_given and "val" in given else val_share,
            test_share=0 if is_given and "test" in given else test_share,
        )

    rows = pd.DataFrame(
        {
            "digest": used.digest,
            "path": used.path,
            "class_name": used.label,
            "class_index": pd.Categorical(used.label, categories=class_names).codes,
            "split": list(map(split, used.group.tolist(), used.split.tolist())),
            "format": used.format,
        }
    ).astype(COLUMNS)
    protection = rows.split.map({split: place for place, split in enumerate(SPLITS)})  # train, val, test
    rows = rows[protection == protection.groupby(used.group).transform("max")]
    rows = rows.sort_values(["digest", "class_index", "split", "path"]).drop_duplicates(
        ["digest", "class_index", "split"]
    )
    dataset = Dataset(rows.reset_index(drop=True), class_names, folder)
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
