import hashlib
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest

from regraft.photos.splitting import FEW, place, split_of

DIGESTS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(2000)]


def test_an_image_stays_in_its_split_for_ever():
    # Written down once. Were it to change, test images of every user would become training images.
    splits = [split_of(digest, val_share=0.15, test_share=0.15) for digest in DIGESTS[:12]]
    assert splits == ["train"] * 4 + ["val"] + ["train"] * 3 + ["val", "test", "val", "train"]


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("share", [0.0, 0.15, 0.4])
def test_shares_are_met_on_average(split, share):
    shares = {"val_share": 0.3, "test_share": 0.3, f"{split}_share": share}
    count = sum(split_of(digest, **shares) == split for digest in DIGESTS)
    # Four standard deviations of a binomial: digests are fixed, so this cannot fail by chance.
    assert abs(count - share * len(DIGESTS)) <= 4 * math.sqrt(len(DIGESTS) * share * (1 - share))


def test_a_larger_test_share_takes_no_image_out_of_test():
    before = {digest for digest in DIGESTS if split_of(digest, val_share=0.1, test_share=0.1) == "test"}
    after = {digest for digest in DIGESTS if split_of(digest, val_share=0.1, test_share=0.2) == "test"}
    assert before < after


@pytest.mark.parametrize(
    ("digits", "split"), [("0", "test"), ("3", "test"), ("4", "val"), ("7", "val"), ("8", "train"), ("f", "train")]
)
def test_borders_are_exact(digits, split):
    assert split_of(digits + "0" * 63, val_share=0.25, test_share=0.25) == split


# By class.

SHARES = {"val_share": 0.15, "test_share": 0.15}


def placed(labels: Iterable[str], groups: Iterable[int] | None = None, **options) -> pd.DataFrame:
    """Place photos with these labels; return label and split, with a column for the group."""
    names = list(labels)
    table = pd.DataFrame({"digest": DIGESTS[: len(names)], "label": names}, dtype="str")
    numbers = range(len(names)) if groups is None else groups
    table["group"] = pd.Series([DIGESTS[-1 - number] for number in numbers], dtype="str")
    table["split"] = pd.Series([None] * len(names), dtype="str")
    return table.assign(split=place(table, **SHARES, **options).split)


def test_over_many_classes_of_three_photos_shares_are_met_and_no_class_is_untrained():
    table = placed(f"class {number % 300}" for number in range(900))
    # Each class is due 0.45 photos of val and of test: a binomial of 300 classes, four standard deviations.
    counts = table.split.value_counts()
    assert abs(counts[["val", "test"]] - 135).max() < 4 * math.sqrt(300 * 0.45 * 0.55)
    assert (table[table.split != "train"].label.value_counts() == 1).all()
    assert set(placed(map(str, range(50))).split) == {"train"}  # a class of one photo


@pytest.mark.parametrize(("photos", "is_by_name"), [(FEW - 1, False), (FEW, True)])
def test_of_a_class_with_many_photos_names_decide(photos, is_by_name):
    table = placed(["cat"] * photos + ["dog"] * 30)
    cats = table[table.label == "cat"]
    assert (cats.split == [split_of(name, **SHARES) for name in cats.group]).all() == is_by_name
    assert ((table[table.label == "dog"].split == "test").sum() in (4, 5)) is True


def test_a_group_of_several_classes_is_in_one_split_and_counts_for_each():
    # A patient has six photos of one class and two of another; there are 20 of them, and 40 of one photo each.
    labels, groups = ["benign"] * 6 + ["malignant"] * 2, np.repeat(np.arange(20), 8).tolist()
    table = placed([*labels * 20, *["malignant"] * 40], [*groups, *range(20, 60)])
    assert (table.groupby("group").split.nunique() == 1).all()
    tested = table[table.split == "test"].label.value_counts()
    assert abs(tested["benign"] - 18) <= 6  # of 120, in sixes
    assert abs(tested["malignant"] - 12) <= 2  # of 80, in ones and twos


def test_a_copy_of_a_photo_counts_once():
    table = pd.DataFrame({"digest": DIGESTS[:20] * 9, "label": "cat", "group": DIGESTS[:20] * 9}, dtype="str")
    table["split"] = pd.Series([None] * len(table), dtype="str")
    splits = place(table, **SHARES).split
    assert splits.groupby(table.digest).first().value_counts().to_dict() == {"train": 14, "val": 3, "test": 3}
