from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from sklearn.preprocessing import normalize

from regraft.features import neighbours as module
from regraft.features.neighbours import Embeddings, embed, measure_distances
from regraft.features.neighbours import find_leaks as find_leaks_at
from regraft.features.neighbours import outlier_distances as outlier_distances_at
from tests.support.points import clouds, write_points


@pytest.fixture
def embedded(tmp_path):
    """A function that makes points of features."""

    def make(points: np.ndarray, splits: np.ndarray | None = None) -> Embeddings:
        return embed(write_points(tmp_path / "features", points, np.zeros(len(points), int), splits))

    return make


def find_leaks(made: Embeddings, min_similarity: float, max_distance: float = 0.5) -> list[tuple[int, int, float]]:
    return find_leaks_at(made, measure_distances(made), min_similarity=min_similarity, max_distance=max_distance)


def outlier_distances(made: Embeddings) -> np.ndarray:
    return outlier_distances_at(measure_distances(made))


def encoded_again(photo: Image.Image) -> Image.Image:
    file = BytesIO()
    photo.save(file, "JPEG", quality=75)
    return Image.open(file)


def test_only_the_unchanged_views_are_points_and_they_have_length_one(embedded):
    points, _ = clouds(0)
    made = embedded(points)
    assert len(made) == 300
    assert np.allclose(made.read(np.arange(300)), normalize(points), atol=1e-6)


def test_distances_along_all_axes_are_those_of_the_points(embedded):
    made = embedded(clouds(0)[0])
    points = made.read(np.arange(5))
    wanted = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert np.allclose(np.linalg.norm(made.reduced[:5, None] - made.reduced[None, :5], axis=2), wanted, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_different_points_are_no_leaks_and_no_outliers(embedded, seed):
    made = embedded(clouds(seed)[0])
    assert find_leaks(made, 0.99) == []
    assert (outlier_distances(made) > 4.5).sum() == 0


@pytest.mark.parametrize(("ours", "theirs"), [("val", "train"), ("test", "train"), ("test", "val")])
def test_a_copy_in_another_split_is_a_leak(embedded, ours, theirs):
    points, splits = clouds(0)[0], np.array(["train", "val", "test"] * 100)
    row, other = np.flatnonzero(splits == ours)[7], np.flatnonzero(splits == theirs)[70]
    points[row] = points[other] * 1.3  # brighter: another length, and nearly the same direction
    points[row, 0] += 0.05
    ((found, partner, similarity),) = find_leaks(embedded(points, splits), 0.99)
    assert (found, partner) == (row, other)
    assert 0.999 < similarity < 1


def test_a_copy_in_the_same_split_is_no_leak(embedded):
    points, splits = clouds(0)[0], np.array(["train", "val", "test"] * 100)
    points[9] = points[3]
    assert find_leaks(embedded(points, splits), 0.99) == []


def test_a_leak_is_found_whatever_is_left_out_of_the_axes(embedded, monkeypatch):
    points, splits = clouds(0)[0], np.array(["train", "val", "test"] * 100)
    points[10] = points[90]
    for axes in (1, 4, 48):
        monkeypatch.setattr(module, "_COMPONENTS", axes)
        monkeypatch.setattr(module, "_CANDIDATES", 80)  # along one axis many are near
        assert [leak[:2] for leak in find_leaks(embedded(points, splits), 0.99)] == [(10, 90)]


def test_points_far_from_all_others_are_the_outliers(embedded):
    points = clouds(0)[0]
    random = np.random.default_rng(3)
    points[[40, 41]] = random.uniform(0, 1, (2, 48)) ** 8
    distances = outlier_distances(embedded(points))
    assert set(np.argsort(-distances)[:2]) == {40, 41}
    assert distances[[40, 41]].min() > 6


def test_the_outlier_of_a_large_folder_is_found_among_a_part_of_it(embedded, monkeypatch):
    points = clouds(0, images=900)[0]
    points[40] = np.random.default_rng(3).uniform(0, 1, 48) ** 8
    monkeypatch.setattr(module, "_COMPARED_WITH", 300)
    distances = outlier_distances(embedded(points))
    assert distances.argmax() == 40
    assert distances[40] > np.sort(distances)[-2] + 3


@pytest.mark.parametrize("images", [2, 3, 6])
def test_a_few_images_are_compared_too(embedded, images):
    made = embedded(clouds(0)[0][:images], np.array(["train", "test"] * 3)[:images])
    assert find_leaks(made, 0.999) == []
    assert np.isfinite(outlier_distances(made)).all()


def test_where_all_photos_are_alike_a_high_similarity_alone_is_no_leak(embedded):
    points = clouds(0)[0] * 0.02 + 1
    splits = np.array(["train", "val", "test"] * 100)
    assert len(find_leaks(embedded(points, splits), 0.95, max_distance=9)) > 1000
    points[10] = points[90] + 1e-5
    assert [leak[:2] for leak in find_leaks(embedded(points, splits), 0.95)] == [(10, 90)]


def test_equal_features_are_leaks_and_no_outliers(embedded):
    made = embedded(np.ones((40, 48), np.float32), np.array(["train", "test"] * 20))
    assert len(find_leaks(made, 0.95)) == 20 * 20
    assert not outlier_distances(made).any()


def test_a_feature_of_zeros_is_an_image_like_any_other(embedded):
    points = clouds(0)[0]
    points[5] = 0
    assert outlier_distances(embedded(points)).argmax() == 5


def test_real_photos_encoded_again_are_leaks_and_different_ones_are_not(features_of, real_photos, embedded):
    photos, copies = features_of(real_photos), features_of(real_photos[50:], encoded_again)
    splits = np.array(["train"] * 60 + ["test"] * 10)
    leaks = find_leaks(embedded(np.concatenate([photos, copies]), splits), 0.95)
    assert sorted(leak[:2] for leak in leaks) == [(60 + number, 50 + number) for number in range(10)]
