from dataclasses import replace

import numpy as np
import pytest

from regraft.features.table import Features
from regraft.training.compared import Rows
from regraft.training.keras_network import to_keras
from regraft.training.metrics import score
from regraft.training.sweep import TrainedHead, train_heads
from tests.support.heads import CONFIG, LINEAR, MLP, are_equal, train


@pytest.fixture(scope="module")
def trained(features) -> TrainedHead:
    return train(features, LINEAR)[0]


def test_a_head_learns_classes_that_differ_by_colour(trained, features):
    values, class_indices = features.of("test")
    # Of three classes a guess gets a third right.
    assert np.mean(to_keras(trained).predict(values, verbose=0).argmax(axis=1) == class_indices) >= 7 / 9


@pytest.mark.parametrize("settings", [replace(MLP, activation=name) for name in ("relu", "silu", "tanh")])
def test_the_epoch_with_the_lowest_log_loss_on_val_is_kept(features, settings):
    (trained,) = train(features, settings)
    values, class_indices = features.of("val")
    assert trained.best == min(trained.curve, key=lambda epoch: epoch.val.log_loss)
    in_keras = score(class_indices, to_keras(trained).predict(values, verbose=0))
    assert in_keras.accuracy == trained.best.val.accuracy
    assert in_keras.log_loss == pytest.approx(trained.best.val.log_loss, abs=1e-5)  # float32, summed in another order


@pytest.mark.parametrize("settings", [LINEAR, MLP])
def test_no_class_is_preferred_before_training(features, settings):
    (trained,) = train(features, settings)
    assert trained.curve[0].val.log_loss == pytest.approx(np.log(3), abs=1e-6)


def test_what_no_training_image_shows_says_nothing(features, trained):
    values, _ = features.of("train")
    is_unseen = ~values.any(axis=0)
    assert is_unseen.any()
    assert not trained.weights[0][is_unseen].any()


@pytest.mark.parametrize(("settings", "seed", "same"), [(MLP, 0, True), (MLP, 1, False), (LINEAR, 1, True)])
def test_the_same_seed_gives_the_same_weights_and_a_linear_head_needs_none(features, settings, seed, same):
    assert are_equal(train(features, settings)[0], train(features, settings, seed=seed)[0]) is same


def test_test_images_are_not_looked_at(trained, features):
    blind = replace(features, splits=np.where(features.splits == "test", "unused", features.splits))
    assert are_equal(trained, train(blind, LINEAR)[0])


def test_training_stops_after_patience(features):
    (trained,) = train(features, replace(MLP, learning_rate=100.0), patience=1, epochs=50)
    assert trained.curve[-1].epoch == trained.best.epoch + 1 < 50


def test_every_epoch_is_reported(features):
    reported: list[int] = []
    train_heads(Rows.of(features), [MLP], CONFIG, seed=0, on_epoch=reported.append)
    assert reported == [1, 2, 3, 4, 5, 6]


# Rare classes.


def rare(features: Features) -> Features:
    """The features with class 2 all but absent from train."""
    is_rare = (features.class_indices == 2) & (features.splits == "train")
    is_left_out = is_rare & (np.cumsum(is_rare) > 2)
    return replace(features, splits=np.where(is_left_out, "unused", features.splits))


def mean_probability(trained: TrainedHead, features: Features) -> float:
    values, class_indices = features.of("val")
    return float(to_keras(trained).predict(values[class_indices == 2], verbose=0)[:, 2].mean())


@pytest.mark.parametrize("class_weight", ["balanced", "logit_adjustment"])
def test_a_rare_class_is_named_more_often_when_it_is_helped(features, class_weight):
    part = rare(features)
    cautious = replace(LINEAR, weight_decay=0.2)
    (without,), (helped,) = (train(part, cautious, epochs=50, class_weight=each) for each in ("none", class_weight))
    assert mean_probability(helped, part) > mean_probability(without, part) + 0.05


def test_balanced_weighs_each_class_the_same(features):
    part = rare(features)
    _, classes = part.of("train")
    plain = replace(MLP, dropout=0.0, label_smoothing=0.0)
    one, two = (train(part, plain, epochs=epochs, batch_size=99, class_weight="balanced")[0] for epochs in (1, 2))
    assert one.best.epoch == 1
    (linear,) = train(part, replace(LINEAR, label_smoothing=0.0), class_weight="balanced")
    # One step per epoch: the loss of the second is that of what the first one left.
    for trained, loss in ((one, two.curve[2].train_loss), (linear, linear.curve[-1].train_loss)):
        probabilities = to_keras(trained).predict(part.of("train")[0], verbose=0)
        by_class = [score(classes[classes == index], probabilities[classes == index]).log_loss for index in range(3)]
        assert loss == pytest.approx(np.mean(by_class), rel=1e-4)


@pytest.mark.parametrize(
    ("class_weight", "loss"),
    [("none", "log_loss"), ("balanced", "balanced_log_loss"), ("logit_adjustment", "balanced_log_loss")],
)
def test_the_epoch_that_is_kept_is_the_best_by_the_loss_that_was_asked_for(features, class_weight, loss):
    # In val one class is left with a single photo, so that the two losses are least in different epochs.
    is_rare = (features.class_indices == 2) & (features.splits == "val")
    part = replace(features, splits=np.where(is_rare & (np.cumsum(is_rare) > 1), "unused", features.splits))
    (trained,) = train(part, replace(MLP, learning_rate=0.03), class_weight=class_weight, epochs=12)
    assert trained.best == min(trained.curve, key=lambda epoch: getattr(epoch.val, loss))


# Several at once.


def test_linear_heads_that_are_solved_for_at_once_are_those_that_are_solved_for_alone(features):
    sweep = [replace(LINEAR, **each) for each in ({}, {"weight_decay": 0.2}, {"label_smoothing": 0.3})]
    for alone, together in zip(sweep, train(features, *sweep, epochs=100), strict=True):
        (expected,) = train(features, alone, epochs=100)
        assert together.settings == alone
        # The search ends where a step gains less than 1e-5 of loss.
        assert together.curve[-1].train_loss == pytest.approx(expected.curve[-1].train_loss, abs=1e-3)
        for own, other in zip(together.weights, expected.weights, strict=True):
            assert own == pytest.approx(other, abs=0.1 * float(np.abs(other).max()))


def test_heads_that_are_trained_at_once_are_those_that_are_trained_alone(features):
    sweep = [
        replace(MLP, dropout=dropout, **values)
        for dropout in (0.5, 0.0)
        for values in ({}, {"learning_rate": 0.1}, {"weight_decay": 0.5}, {"label_smoothing": 0.3})
    ]
    for alone, together in zip(sweep, train(features, *sweep), strict=True):
        (expected,) = train(features, alone)
        assert together.settings == alone
        assert together.best.epoch == expected.best.epoch
        for own, other in zip(together.weights, expected.weights, strict=True):
            assert own == pytest.approx(other, abs=2e-3)  # float32, summed in another order; a step is 0.01 to 0.1


def test_one_whose_patience_is_over_leaves_and_the_others_go_on(features):
    fast, slow = train(
        features,
        replace(MLP, learning_rate=100.0),
        replace(MLP, learning_rate=0.0001),
        patience=1,
        epochs=8,
    )
    assert fast.curve[-1].epoch == fast.best.epoch + 1 < 8
    assert slow.curve[-1].epoch == slow.best.epoch == 8
    (alone,) = train(features, slow.settings, patience=1, epochs=8)
    assert slow.curve[-1].val.log_loss == pytest.approx(alone.curve[-1].val.log_loss, abs=1e-5)


# With fewer images.


def test_a_share_is_of_every_class_and_of_all_views_of_an_image(features, monkeypatch):
    read: list[int] = []
    original = Features.read
    monkeypatch.setattr(Features, "read", lambda self, positions: read.extend(positions) or original(self, positions))
    used = []
    for share in (0.001, 0.25, 0.5):
        read.clear()
        train(features, LINEAR, share=share, epochs=1)
        used.append({position for position in read if features.splits[position] == "train"})
    counts = [np.bincount(features.class_indices[sorted(positions)]).tolist() for positions in used]
    # Six images of each class, each with two views.
    assert counts == [[2, 2, 2], [4, 4, 4], [6, 6, 6]]
    assert all(len({features.digests[position] for position in positions}) * 2 == len(positions) for positions in used)
    assert used[0] < used[1] < used[2]
