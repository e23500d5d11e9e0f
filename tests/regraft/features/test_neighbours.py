from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from regraft.features import neighbours as module
from regraft.features.neighbours import Distances, Embeddings, embed, measure_distances, near_limit
from regraft.features.neighbours import find_leaks as find_leaks_at
from regraft.features.neighbours import outlier_distances as outlier_distances_at
from tests.support.points import clouds, write_points


@pytest.fixture
def embedded(tmp_path):
    """A function that makes points of features, all or those that are looked at."""

    def make(points: np.ndarray, splits: np.ndarray | None = None, looked_at: np.ndarray | None = None) -> Embeddings:
        return embed(write_points(tmp_path / "features", points, np.zeros(len(points), int), splits), looked_at)

    return make


def distances_between(made: Embeddings, groups: np.ndarray | None = None) -> Distances:
    return measure_distances(made, np.arange(len(made.everything)) if groups is None else groups)


def find_leaks(made: Embeddings, groups: np.ndarray | None = None) -> list[tuple[int, int, float]]:
    groups = np.arange(len(made.everything)) if groups is None else groups
    return find_leaks_at(made, groups, distances_between(made, groups), expected=0.01)[0]


def outlier_distances(made: Embeddings) -> np.ndarray:
    return outlier_distances_at(distances_between(made))


def encoded_again(photo: Image.Image) -> Image.Image:
    file = BytesIO()
    photo.save(file, "JPEG", quality=75)
    return Image.open(file)


@pytest.mark.parametrize("seed", range(5))
def test_different_points_are_no_leaks_and_no_outliers(embedded, seed):
    made = embedded(clouds(seed)[0])
    assert find_leaks(made) == []
    assert (outlier_distances(made) > 4.5).sum() == 0


@pytest.mark.parametrize(("ours", "theirs"), [("val", "train"), ("test", "train"), ("test", "val")])
def test_a_copy_in_another_split_is_a_leak(embedded, ours, theirs):
    points, splits = clouds(0)[0], np.array(["train", "val", "test"] * 100)
    row, other = np.flatnonzero(splits == ours)[7], np.flatnonzero(splits == theirs)[70]
    points[row] = points[other] * 1.3  # brighter: another length, and nearly the same direction
    points[row, 0] += 0.05
    ((found, partner, similarity),) = find_leaks(embedded(points, splits))
    assert (found, partner) == (row, other)
    assert 0.999 < similarity < 1


def test_points_far_from_all_others_are_the_outliers(embedded):
    points = clouds(0)[0]
    random = np.random.default_rng(3)
    points[[40, 41]] = random.uniform(0, 1, (2, 48)) ** 8
    distances = outlier_distances(embedded(points))
    assert set(np.argsort(-distances)[:2]) == {40, 41}
    assert distances[[40, 41]].min() > 6


def test_real_photos_encoded_again_are_leaks_and_different_ones_are_not(features_of, real_photos, embedded):
    photos, copies = features_of(real_photos), features_of(real_photos[50:], encoded_again)
    splits = np.array(["train"] * 60 + ["test"] * 10)
    leaks = find_leaks(embedded(np.concatenate([photos, copies]), splits))
    assert sorted(leak[:2] for leak in leaks) == [(60 + number, 50 + number) for number in range(10)]


def test_the_limit_follows_from_the_photos_and_not_from_their_copies():
    random = np.random.default_rng(0)
    fifth = np.ones(1000)
    first = random.beta(1, 4, 1000) ** (1 / 12)  # as in twelve dimensions
    copied = np.where(np.arange(1000) < 300, 0.01, first)
    clean, with_copies = (near_limit(Distances(each, fifth, 1000), 10**5, 0.1) for each in (first, copied))
    assert clean == pytest.approx((0.1 / 500) ** (1 / 12), rel=0.05)
    assert with_copies > 0.6 * clean
    assert near_limit(Distances(first, fifth, 1000), 10**7, 0.1) < clean


def test_photos_of_one_group_are_not_each_others_neighbours(embedded):
    points = clouds(0)[0]
    points[1:8] = points[0] + np.random.default_rng(0).normal(0, 1e-4, (7, 48))
    groups = np.r_[np.zeros(8, int), np.arange(1, 293)]
    made = embedded(points)
    alone, together = distances_between(made), distances_between(made, groups)
    assert alone.fifth[:8].max() < 0.01 < together.first[:8].min()
    assert together.compared == 293


def test_of_a_sample_every_leak_is_found_also_with_photos_that_are_not_looked_at(embedded, monkeypatch):
    points, splits = clouds(0)[0], np.array(["train", "val", "test"] * 100)
    points[[10, 13, 17]] = points[[90, 91, 92]] + 1e-5  # val and train, val and val, test and test
    points[200] = points[100] + 1e-5  # test and val
    monkeypatch.setattr(module, "_AMONG", 64)
    monkeypatch.setattr(module, "_BLOCK", 16)
    everything = find_leaks(embedded(points, splits))
    assert sorted(leak[:2] for leak in everything) == [(10, 90), (200, 100)]
    looked_at = np.array([row for row in range(300) if row % 2 == 0 or row == 201])
    assert sorted(leak[:2] for leak in find_leaks(embedded(points, splits, looked_at))) == [(10, 90), (200, 100)]
    assert 100 in looked_at
    others = np.setdiff1d(looked_at, [90, 100])
    assert [leak[:2] for leak in find_leaks(embedded(points, splits, others))] == [leak[:2] for leak in everything]
    assert find_leaks(embedded(points, splits, np.setdiff1d(looked_at, [10, 200]))) == []
