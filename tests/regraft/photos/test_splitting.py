import hashlib
import math

import pytest

from regraft.photos.dataset import SPLITS
from regraft.photos.splitting import split_of

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


def test_without_shares_every_image_is_trained_on():
    assert {split_of(digest, val_share=0, test_share=0) for digest in DIGESTS} == {SPLITS[0]}
