import hashlib
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regraft.photos.dataset import COLUMNS, Dataset
from regraft.photos.sample import sample_of, stable_sample, with_sample

COUNTS = [3, 25, 400, 2000]  # photos of each class


@pytest.fixture(scope="module")
def photos() -> tuple[list[str], np.ndarray]:
    classes = np.random.default_rng(0).permutation(np.repeat(range(len(COUNTS)), COUNTS))
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(len(classes))], classes


def members(digests: list[str], classes: np.ndarray, size: int, least: int = 0) -> set[str]:
    return {digests[position] for position in stable_sample(digests, classes, size, least=least)}


def counts(photos: tuple[list[str], np.ndarray], size: int, **least: int) -> list[int]:
    return np.bincount(photos[1][stable_sample(*photos, size, **least)], minlength=len(COUNTS)).tolist()


def test_each_class_has_the_share_of_a_sample_that_it_has_of_all(photos):
    assert counts(photos, 607) == [1, 6, 100, 500]
    assert counts(photos, 20) == [0, 0, 3, 17]


def test_at_least_so_many_photos_of_each_class_come_first_where_they_are_asked_for(photos):
    # Of the small classes there are 3 and 20; the others share what is left as 1 to 5.
    assert counts(photos, 501, least=20) == [3, 20, 80, 398]
    assert counts(photos, 20, least=1) == [1, 1, 3, 15]
    assert sorted(counts(photos, 21, least=20)) == [3, 6, 6, 6]


@pytest.mark.parametrize("least", [0, 1, 20])
def test_a_smaller_sample_is_part_of_a_larger_one(photos, least):
    samples = [members(*photos, size=size, least=least) for size in (0, 1, 10, 100, 1000, 2428, 9999)]
    assert [len(sample) for sample in samples] == [0, 1, 10, 100, 1000, 2428, 2428]
    assert all(smaller <= larger for smaller, larger in itertools.pairwise(samples))


@pytest.mark.parametrize(("size", "least"), [(21, 20), (21, 0), (500, 20), (500, 1), (500, 0)])
def test_one_more_photo_replaces_at_most_one(photos, size, least):
    digests, classes = photos
    whole = members(digests, classes, size, least)
    replaced = set()
    for left_out in range(0, len(digests), 12):
        before = members(digests[:left_out] + digests[left_out + 1 :], np.delete(classes, left_out), size, least)
        replaced.add((len(whole - before), len(before - whole)))
    assert replaced == {(0, 0), (1, 1)}


def test_all_views_of_a_photo_are_taken_or_none(photos):
    digests, classes = photos
    once, twice = stable_sample(digests, classes, 500), stable_sample(digests * 2, np.tile(classes, 2), 500)
    assert twice.tolist() == [*once, *(once + len(digests))]


def test_a_photo_under_two_labels_is_in_either_kind_of_sample_as_often(photos):
    digests, classes = photos
    twice = (digests + digests[:300], [*classes, *(classes[:300] + 1) % len(COUNTS)])
    rows = pd.DataFrame({"digest": twice[0], "class_index": twice[1], "split": "test", "path": "", "format": "JPEG"})
    rows = rows.assign(class_name=rows.class_index.astype(str))
    dataset = Dataset(rows[list(COLUMNS)].astype(COLUMNS), [str(number) for number in range(len(COUNTS))], Path())
    sample = sample_of(dataset, 500)
    assert len(sample) == 500
    pd.testing.assert_frame_equal(with_sample(dataset, "test", 500).rows, sample.rows)
