import numpy as np
import pytest

from regraft.features.table import Features
from regraft.training.baselines import Probes, conclusions, probe
from regraft.training.batched_heads import HeadSettings
from regraft.training.heads import TrainedHead
from regraft.training.keras_models import Epoch
from regraft.training.metrics import Score

PROBES = Probes(majority=0.5, nearest_centroid=0.6, nearest_neighbours=0.7)


def made(monkeypatch, features: Features, values: np.ndarray) -> Features:
    """The features of the fixture with other values."""
    monkeypatch.setattr(Features, "read", lambda self, positions: values[positions].astype(np.float32))
    return features


def test_features_that_follow_the_class_are_told_apart_by_nearness(features, monkeypatch):
    random = np.random.default_rng(0)
    values = np.eye(3)[features.class_indices] + random.normal(0, 0.05, (len(features.class_indices), 3))
    probes = probe(made(monkeypatch, features, values))
    assert (probes.nearest_centroid, probes.nearest_neighbours) == (1.0, 1.0)
    _, classes = features.of("val")
    largest = np.bincount(features.of("train")[1]).argmax()
    assert probes.majority == pytest.approx(np.mean(classes == largest))


def test_features_that_do_not_follow_the_class_are_not(features, monkeypatch):
    values = np.random.default_rng(0).normal(size=(len(features.class_indices), 3))
    probes = probe(made(monkeypatch, features, values))
    assert max(probes.nearest_centroid, probes.nearest_neighbours) < 0.8


def test_the_length_of_a_feature_plays_no_part(features, monkeypatch):
    lengths = np.random.default_rng(0).uniform(0.01, 100, (len(features.class_indices), 1))
    probes = probe(made(monkeypatch, features, np.eye(3)[features.class_indices] * lengths))
    assert (probes.nearest_centroid, probes.nearest_neighbours) == (1.0, 1.0)


def test_augmented_views_are_left_out(features, monkeypatch):
    right = np.eye(3)[features.class_indices]
    wrong = np.where((features.views == 0)[:, None], right, 1 - right)
    assert probe(made(monkeypatch, features, wrong)).nearest_neighbours == 1.0


def test_of_a_large_split_a_part_is_asked(features, monkeypatch):
    monkeypatch.setattr("regraft.training.baselines._IMAGES", {"train": 9, "val": 3})
    read: list[int] = []
    values = np.eye(3)[features.class_indices]
    monkeypatch.setattr(Features, "read", lambda self, positions: read.extend(positions) or values[positions])
    probe(features)
    assert len(read) == 12


def head(accuracy: float) -> TrainedHead:
    epoch = Epoch(1, 1.0, Score(accuracy, 0.5, accuracy, 0.5))
    return TrainedHead(HeadSettings(0, "relu", "adamw", 0.0, 0.1, 0.0, 0.0), [], [epoch], epoch)


@pytest.mark.parametrize(
    ("accuracy", "curve", "val_images", "said"),
    [
        (0.9, {}, 100, ["Transfer works"]),
        (0.52, {}, 100, ["Transfer does not work here"]),  # 0.02 with a standard error of 0.05
        (0.52, {}, 100_000, ["Transfer works", "The neighbours beat the head"]),
        (0.9, {0.1: 0.6, 0.5: 0.8}, 400, ["Transfer works", "more photos of the same kind are likely to help"]),
        (0.9, {0.5: 0.89}, 400, ["Transfer works", "more photos may change little"]),
    ],
)
def test_the_words_follow_from_the_figures(accuracy, curve, val_images, said):
    words = conclusions(PROBES, head(accuracy), curve, val_images)
    assert len(words) == len(said)
    assert all(part in sentence for part, sentence in zip(said, words, strict=True))


def test_a_perfect_head_on_few_images_is_not_taken_for_certain():
    assert "differences below 0.020 are noise" in conclusions(PROBES, head(1.0), {}, 100)[0]
