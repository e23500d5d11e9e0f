from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from regraft.core.errors import RegraftError
from regraft.features.table import Features
from regraft.training import heads
from regraft.training.heads import Rows, TrainedHead, find_head, learning_curve, settings_of, write_leaderboard
from regraft.training.metrics import class_prior, class_weights, log_losses, score
from regraft.training.network_file import HeadSettings
from tests.support.heads import CLASSIC, LINEAR, are_equal, config, train


def unwatched(_: str):
    return lambda epoch: None


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch):
    monkeypatch.setattr(heads, "MAX_EPOCHS", 20)
    monkeypatch.setattr(heads, "_BATCH_SIZE", 8)


@pytest.fixture(scope="module")
def linear(features) -> TrainedHead:
    return train(features, LINEAR)[0]


@pytest.fixture(scope="module")
def classic(features) -> TrainedHead:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "MAX_EPOCHS", 6)
        patch.setattr(heads, "_BATCH_SIZE", 8)
        return train(features, CLASSIC)[0]


def test_a_sweep_is_every_combination():
    sweep = settings_of(config(kind=["linear", "classic"], penalty=[0.1, 0.01], label_smoothing=[0.0, 0.1]))
    expected = [(0.1, 0.0), (0.1, 0.1), (0.01, 0.0), (0.01, 0.1)]
    assert sweep == [*(HeadSettings(0, "relu", "lbfgs", 0.2, 0.0, *each) for each in expected), CLASSIC]


@pytest.mark.parametrize("kind", ["linear", "classic"])
def test_a_head_learns_classes_that_differ_by_colour(kind, features, request):
    head = request.getfixturevalue(kind)
    values, class_indices = features.of("test")
    # Of three classes a guess gets a third right.
    assert np.mean(head.probabilities(values).argmax(axis=1) == class_indices) >= 7 / 9
    assert np.array_equal(head.right, head.probabilities(features.of("val")[0]).argmax(axis=1) == features.of("val")[1])


def test_the_classic_head_is_kept_as_it_was_at_its_lowest_loss_on_val(features, classic):
    assert [weight.shape for weight in classic.weights] == [(1280, 1024), (1024,), (1024, 3), (3,)]
    assert classic.best == min(classic.curve, key=lambda epoch: epoch.val.log_loss)
    values, class_indices = features.of("val")
    assert score(class_indices, classic.probabilities(values)) == classic.best.val


def test_the_training_of_a_classic_head_ends_when_val_improves_no_more(features, monkeypatch):
    monkeypatch.setattr(heads, "_PATIENCE", 1)
    (trained,) = train(features, replace(CLASSIC, learning_rate=100.0))
    assert trained.curve[-1].epoch == trained.best.epoch + 1 < 20


def test_linear_heads_that_are_solved_for_at_once_are_those_that_are_solved_for_alone(features):
    sweep = [replace(LINEAR, **each) for each in ({}, {"weight_decay": 0.2}, {"label_smoothing": 0.3})]
    for alone, together in zip(sweep, train(features, *sweep), strict=True):
        (expected,) = train(features, alone)
        assert together.settings == alone
        # The search ends where a step gains less than 1e-5 of loss.
        assert together.curve[-1].train_loss == pytest.approx(expected.curve[-1].train_loss, abs=1e-3)


# Rare classes.


def rare(features: Features) -> Features:
    """The features with class 2 all but absent from train."""
    is_rare = (features.class_indices == 2) & (features.splits == "train")
    return replace(features, splits=np.where(is_rare & (np.cumsum(is_rare) > 2), "unused", features.splits))


@pytest.mark.parametrize("class_weight", ["balanced", "logit_adjustment"])
def test_a_rare_class_is_predicted_more_often_when_it_is_helped(features, class_weight, monkeypatch):
    monkeypatch.setattr(heads, "MAX_EPOCHS", 50)
    part, cautious = rare(features), replace(LINEAR, weight_decay=0.2)
    values, classes = part.of("val")
    without, helped = (
        train(part, cautious, class_weight=each)[0].probabilities(values[classes == 2])[:, 2].mean()
        for each in ("none", class_weight)
    )
    assert helped > without + 0.05


@pytest.mark.parametrize("class_weight", ["none", "balanced", "logit_adjustment"])
def test_the_loss_of_a_classic_head_has_the_weights_and_the_prior_of_its_classes(features, class_weight, monkeypatch):
    monkeypatch.setattr(heads, "MAX_EPOCHS", 1)
    part = rare(features)
    values, classes = part.of("train")
    (still,) = train(part, replace(CLASSIC, learning_rate=0.0), class_weight=class_weight)
    prior = class_prior(class_weight, classes, 3)
    probabilities = still.probabilities(values) * (1 if prior is None else prior)
    losses = log_losses(classes, probabilities / probabilities.sum(axis=1, keepdims=True))
    expected = np.mean(losses * class_weights(class_weight, classes, 3)[classes])
    assert still.curve[1].train_loss == pytest.approx(expected, rel=1e-4)


# The winner.


def test_the_winner_has_the_lowest_log_loss(features):
    winner, comparison = find_head(features, config(penalty=[9.0, 0.1]), seed=0, watch=unwatched)
    losses = [trained.best.val.log_loss for trained in comparison.ranked]
    assert losses == sorted(losses)
    assert winner is comparison.ranked[0]


def test_a_head_of_numbers_that_are_not_finite_never_wins_and_alone_it_is_an_error(features, linear, monkeypatch):
    spoilt, found = replace(linear, weights=[np.full((2, 3), np.nan, np.float32)]), [linear]
    monkeypatch.setattr(heads, "train_heads", lambda *_, **__: [spoilt, *found])
    assert find_head(features, config(), seed=0, watch=unwatched)[0] is linear
    found.clear()
    with pytest.raises(RegraftError, match="not finite numbers, so no head is written"):
        find_head(features, config(), seed=0, watch=unwatched)


def test_the_leaderboard_lists_every_head_with_its_settings(features, tmp_path):
    ranked = train(features, LINEAR, replace(LINEAR, weight_decay=9.0))
    write_leaderboard(tmp_path / "leaderboard.csv", ranked)
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert list(table.weight_decay) == [trained.settings.weight_decay for trained in ranked]
    assert list(table.val_log_loss) == pytest.approx([trained.best.val.log_loss for trained in ranked])


def test_the_learning_curve_has_each_share(features):
    settings = config(learning_curve=[0.5, 0.1])
    curve = learning_curve(find_head(features, settings, seed=0, watch=unwatched)[1], settings, seed=0, watch=unwatched)
    (half,) = train(features, LINEAR, share=0.5)
    assert list(curve) == [3, 9]  # of 18 photos, at least one of each class
    assert curve[9].mean() == half.best.val.accuracy


def test_a_share_is_of_every_class_and_of_all_views_of_an_image(features):
    used = [set(Rows.of(features).share(share).train.tolist()) for share in (0.001, 0.25, 0.5)]
    counts = [np.bincount(features.class_indices[sorted(positions)]).tolist() for positions in used]
    assert counts == [[2, 2, 2], [4, 4, 4], [6, 6, 6]]  # six images of each class, each with two views
    assert all(len({features.digests[position] for position in positions}) * 2 == len(positions) for positions in used)
    assert used[0] < used[1] < used[2]


# Where photos are many.


def test_settings_are_compared_on_a_sample_and_the_best_is_trained_on_all_photos(features, monkeypatch):
    sweep = config(penalty=[9.0, 0.1], learning_curve=[0.5])
    monkeypatch.setattr(heads, "MAX_PHOTOS", 6)
    winner, comparison = find_head(features, sweep, seed=0, watch=unwatched)
    sample, best = Rows.of(features).sample(6), comparison.ranked[0]
    assert [features.digests[position] for position in sample.train].count(features.digests[sample.train[0]]) == 2
    assert (comparison.photos, comparison.rows.photos, len(comparison.rows.val)) == (18, 6, 6)
    curve = learning_curve(comparison, sweep, seed=0, watch=unwatched)
    assert list(curve) == [3, 6]
    assert curve[6] is best.right
    monkeypatch.setattr(heads, "MAX_PHOTOS", 100)
    assert are_equal(best, find_head(on(features, sample), sweep, seed=0, watch=unwatched)[0])
    judged = on(features, replace(sample, train=Rows.of(features).train))
    assert are_equal(winner, train(judged, best.settings)[0])
    assert winner.right.shape == best.right.shape == (6,)


def on(features: Features, rows: Rows) -> Features:
    """The features with these rows alone in train and val."""
    splits = np.full(len(features.splits), "others")
    splits[rows.train], splits[rows.val] = "train", "val"
    return replace(features, splits=splits)
