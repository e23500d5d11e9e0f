import numpy as np
import pytest

from regraft.features.table import Features
from regraft.training.baselines import Probes, Yardstick, conclusions, probe, recall_of
from regraft.training.heads import Rows
from regraft.training.metrics import objective_of


def made(monkeypatch, features: Features, values: np.ndarray) -> Features:
    """The features of the fixture with other values."""
    monkeypatch.setattr(Features, "read", lambda self, positions: values[positions].astype(np.float32))
    return features


def test_features_that_follow_the_class_are_told_apart_by_nearness(features, monkeypatch):
    random = np.random.default_rng(0)
    values = np.eye(3)[features.class_indices] + random.normal(0, 0.05, (len(features.class_indices), 3))
    probes = probe(Rows.of(made(monkeypatch, features, values)))
    assert probes.nearest_centroid.all()
    assert probes.nearest_neighbours.all()
    _, classes = features.of("val")
    largest = np.bincount(features.of("train")[1]).argmax()
    assert probes.accuracies()["majority"].value == pytest.approx(np.mean(classes == largest))


def test_augmented_views_are_left_out(features, monkeypatch):
    right = np.eye(3)[features.class_indices]
    wrong = np.where((features.views == 0)[:, None], right, 1 - right)
    assert probe(Rows.of(made(monkeypatch, features, wrong))).nearest_neighbours.all()


ACCURACY = Yardstick(objective_of("none"), np.zeros(0, int))


def right(count: int, images: int) -> np.ndarray:
    """Of so many images the first ones are named rightly."""
    return np.arange(images) < count


def probes_of(images: int) -> Probes:
    """Accuracies of 0.5, 0.6 and 0.7."""
    largest, centroid, neighbours = (right(images * share // 10, images) for share in (5, 6, 7))
    return Probes(largest, centroid, neighbours, np.arange(images))


def test_differences_are_paired():
    # The same two accuracies: where the head is right wherever the part was, four photos are enough to tell.
    images, whole = 400, right(360, 400)
    nested = {50: right(348, images)}
    crossed = {50: np.roll(right(348, images), 40)}
    assert "likely to help" in conclusions(probes_of(images), whole, nested, 100, ACCURACY)[-1]
    assert "400 val photos cannot tell" in conclusions(probes_of(images), whole, crossed, 100, ACCURACY)[-1]


# Where rare classes are helped.


def test_a_head_that_names_a_rare_class_is_a_gain_although_it_is_less_accurate():
    # 380 photos of one class and 20 of another, of which the head names 320 and 19 rightly.
    classes = np.repeat([0, 1], [380, 20])
    largest, head = classes == 0, np.concatenate([right(320, 380), right(19, 20)])
    probes, balanced = Probes(largest, largest, largest, np.arange(400)), Yardstick(objective_of("balanced"), classes)
    assert "Transfer does not work here" in conclusions(probes, head, {}, 100, ACCURACY)[0]
    words = conclusions(probes, head, {50: largest}, 100, balanced)
    assert words[0].startswith("Transfer works: on 400 val photos the head has macro recall 89.6% (")
    assert "always naming the largest class 50.0% (for the head +39.6 points" in words[0]
    assert "With 50 of the 100 training photos it has 50.0%; all bring +39.6 points" in words[1]


def test_of_a_class_with_one_photo_little_is_known():
    found = recall_of(np.array([True, True, True]), np.array([0, 0, 1]))
    assert (found.value, found.high - found.low) == pytest.approx((1.0, 0.98))
