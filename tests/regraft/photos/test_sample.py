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


def test_where_many_classes_are_rare_a_figure_of_a_sample_is_that_of_all():
    sizes = (13_400 / np.arange(1, 1001)).astype(int)  # of 1,000 classes, as words are frequent: 13.4 % of the first
    classes = np.repeat(range(1000), sizes)
    numbers = np.random.default_rng(0).permutation(len(classes))
    right = np.where(sizes < 60, 0.6, 0.9)[classes]
    sample = stable_sample([f"{number:016x}" for number in numbers], classes, 20_000)
    assert right[sample].mean() == pytest.approx(right.mean(), abs=0.005)
    assert np.mean(classes[sample] == 0) == pytest.approx(np.mean(classes == 0), abs=0.002)


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


def test_it_does_not_depend_on_the_order_of_the_photos(photos):
    digests, classes = photos
    assert members(digests[::-1], classes[::-1], 500) == members(digests, classes, 500)


def test_all_views_of_a_photo_are_taken_or_none(photos):
    digests, classes = photos
    once, twice = stable_sample(digests, classes, 500), stable_sample(digests * 2, np.tile(classes, 2), 500)
    assert twice.tolist() == [*once, *(once + len(digests))]


def test_a_photo_under_two_labels_is_one_of_each():
    assert stable_sample(["a" * 64, "a" * 64], np.array([0, 1]), 1).tolist() in ([0], [1])
    assert stable_sample(["a" * 64, "a" * 64], np.array([0, 1]), 2).tolist() == [0, 1]


def test_of_no_photos_none_are_taken():
    assert stable_sample([], np.zeros(0, int), 5).tolist() == []


def test_a_photo_under_two_labels_is_in_either_kind_of_sample_as_often(photos):
    digests, classes = photos
    twice = (digests + digests[:300], [*classes, *(classes[:300] + 1) % len(COUNTS)])
    rows = pd.DataFrame({"digest": twice[0], "class_index": twice[1], "split": "test", "path": "", "format": "JPEG"})
    rows = rows.assign(class_name=rows.class_index.astype(str))
    dataset = Dataset(rows[list(COLUMNS)].astype(COLUMNS), [str(number) for number in range(len(COUNTS))], Path())
    sample = sample_of(dataset, 500)
    assert len(sample) == 500
    pd.testing.assert_frame_equal(with_sample(dataset, "test", 500).rows, sample.rows)
