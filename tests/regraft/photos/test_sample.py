import hashlib
import itertools

import numpy as np
import pytest

from regraft.photos.sample import stable_sample

COUNTS = [3, 25, 400, 2000]  # photos of each class


@pytest.fixture(scope="module")
def photos() -> tuple[list[str], np.ndarray]:
    classes = np.random.default_rng(0).permutation(np.repeat(range(len(COUNTS)), COUNTS))
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(len(classes))], classes


def members(digests: list[str], classes: np.ndarray, size: int) -> set[str]:
    return {digests[position] for position in stable_sample(digests, classes, size)}


def test_each_class_has_its_share_of_a_sample_and_some_photos_at_least(photos):
    counts = np.bincount(photos[1][stable_sample(*photos, 501)])
    # Of the small classes there are 3 and 20; the others share what is left as 1 to 5.
    assert counts.tolist() == [3, 20, 80, 398]


def test_a_small_sample_has_about_as_many_photos_of_each_class(photos):
    counts = np.bincount(photos[1][stable_sample(*photos, 21)])
    assert counts[0] == 3
    assert counts.sum() == 21
    assert max(counts[1:]) - min(counts[1:]) <= 1


def test_a_smaller_sample_is_part_of_a_larger_one(photos):
    samples = [members(*photos, size) for size in (0, 1, 10, 100, 1000, 2428, 9999)]
    assert [len(sample) for sample in samples] == [0, 1, 10, 100, 1000, 2428, 2428]
    assert all(smaller <= larger for smaller, larger in itertools.pairwise(samples))


@pytest.mark.parametrize("size", [21, 500])
def test_one_more_photo_replaces_at_most_one(photos, size):
    digests, classes = photos
    whole = members(digests, classes, size)
    replaced = set()
    for left_out in range(0, len(digests), 12):
        before = members(digests[:left_out] + digests[left_out + 1 :], np.delete(classes, left_out), size)
        replaced.add((len(whole - before), len(before - whole)))
    assert replaced == {(0, 0), (1, 1)}


def test_it_does_not_depend_on_the_order_of_the_photos(photos):
    digests, classes = photos
    assert members(digests[::-1], classes[::-1], 500) == members(digests, classes, 500)


def test_all_views_of_a_photo_are_taken_or_none(photos):
    digests, classes = photos
    once, twice = stable_sample(*photos, 500), stable_sample(digests * 2, np.tile(classes, 2), 500)
    assert twice.tolist() == [*once, *(once + len(digests))]


def test_a_photo_under_two_labels_is_one_of_each():
    assert stable_sample(["a" * 64, "a" * 64], np.array([0, 1]), 1).tolist() in ([0], [1])
    assert stable_sample(["a" * 64, "a" * 64], np.array([0, 1]), 2).tolist() == [0, 1]


def test_of_no_photos_none_are_taken():
    assert stable_sample([], np.zeros(0, int), 5).tolist() == []
