import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import normalize

from regraft.features import label_errors as module
from regraft.features.label_errors import label_probabilities, rank_labels
from regraft.features.neighbours import embed
from tests.support.points import clouds, write_points


@pytest.fixture
def ranked(tmp_path):
    """A function that ranks made-up labels."""

    def rank(points: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None):
        groups = np.arange(len(labels)) if groups is None else groups
        embeddings = embed(write_points(tmp_path / "features", points, labels))
        return rank_labels(label_probabilities(embeddings, groups), labels, groups)

    return rank


@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_label_ranks_first_and_the_right_one_is_suggested(ranked, seed):
    points, labels = clouds(seed)
    labels[123] = (labels[123] + 1) % 3
    first = ranked(points, labels).iloc[0]
    assert (first.row, first.suggested, first.likely) == (123, (labels[123] - 1) % 3, True)
    assert first.score < 0.01


@pytest.mark.parametrize("seed", range(5))
def test_no_label_of_a_clean_set_is_a_likely_error(ranked, seed):
    assert not ranked(*clouds(seed)).likely.any()


@pytest.mark.parametrize("rows", [512, 1])  # how many are in memory at a time
def test_every_output_is_that_of_a_regression_without_the_group(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(module, "_ROWS", rows)
    points, labels = clouds(0, images=60)
    groups = np.r_[np.zeros(7, int), np.repeat(np.arange(1, 11), 2), np.arange(11, 44)]
    embeddings = embed(write_points(tmp_path / "features", points, labels))
    regression, ridges = module._regression(embeddings, labels), np.array([0.7, 3], np.float32)
    outputs = np.empty((2, 60, 3))
    for some in module._by_size(groups, np.arange(60)):
        outputs[:, some.ravel()] = module._outputs(regression, embeddings, some, ridges)
    unit, targets = normalize(points).astype(float), np.eye(3)[labels]
    for group in (0, 5, 40):
        others = groups != group
        without = Ridge(alpha=0.7).fit(unit[others], targets[others])
        assert np.allclose(outputs[0, ~others], without.predict(unit[~others]), atol=1e-4)  # float32


def test_wrong_labels_of_a_whole_group_are_found_although_the_photos_agree(ranked):
    points, labels = clouds(0)
    burst = np.flatnonzero(labels == 0)[:8]
    points[burst] = points[burst[0]] + np.random.default_rng(0).normal(0, 0.01, (8, 48))
    labels[burst] = 1
    groups = np.arange(300)
    groups[burst] = burst[0]
    groups = np.unique(groups, return_inverse=True)[1]
    alone, together = ranked(points, labels), ranked(points, labels, groups)
    assert not set(alone.row[alone.likely]) & set(burst)  # each is vouched for by seven others
    assert set(together.row[:8]) == set(burst)
    assert together.likely[:8].all()


def test_a_class_of_one_group_is_not_judged(ranked):
    points, labels = clouds(0)
    labels[:4] = 3
    groups = np.r_[np.zeros(4, int), np.arange(1, 297)]
    table = ranked(points, labels, groups)
    assert len(table) == 296
    assert 3 not in set(table.suggested)


def test_features_that_say_nothing_make_no_label_likely_wrong(ranked):
    labels = np.arange(60) % 3
    assert not ranked(np.ones((60, 8), np.float32), labels).likely.any()
    noise = np.random.default_rng(0).uniform(0, 1, (300, 48)).astype(np.float32)
    assert ranked(noise, np.arange(300) % 3).likely.mean() < 0.1
