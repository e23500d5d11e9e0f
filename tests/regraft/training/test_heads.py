from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from regraft.config import TrainHead
from regraft.features.table import Features
from regraft.training.batched_heads import HeadSettings, Stack, glorot_uniform, random_bits
from regraft.training.heads import (
    TrainedHead,
    build_head,
    find_head,
    learning_curve,
    settings_of,
    to_keras,
    train_heads,
    write_leaderboard,
)
from regraft.training.keras_models import start_keras
from regraft.training.metrics import score
from tests.support.in_keras import compile_classifier

LINEAR = HeadSettings(0, "relu", "adamw", 0.2, 0.01, 0.001, 0.05)
CONFIG = TrainHead.model_validate(
    {
        "kind": "linear",
        "hidden_units": 5,
        "activation": "silu",
        "dropout": 0.2,
        "learning_rate": 0.01,
        "weight_decay": 0.001,
        "label_smoothing": 0.05,
        "class_weight": "none",
        "batch_size": 8,
        "epochs": 6,
        "patience": 12,
        "learning_curve": [],
    }
)


def config(**values: object) -> TrainHead:
    return TrainHead.model_validate(CONFIG.model_dump() | values)


def train(
    features: Features, *sweep: HeadSettings, seed: int = 0, share: float = 1.0, **values: object
) -> list[TrainedHead]:
    return train_heads(features, sweep, config(**values), seed=seed, on_epoch=lambda _: None, share=share)


def random_kernels(random: np.random.Generator, hidden_units: int) -> list[np.ndarray]:
    """Kernels for a `Stack` of heads for 1,280 features and three classes, none of them zero."""
    sizes = [1280, *([hidden_units] if hidden_units else []), 3]
    return [glorot_uniform(random, *ends) for ends in pairwise(sizes)]


def unwatched(_: str):
    return lambda epoch: None


def equal(one: TrainedHead, other: TrainedHead) -> bool:
    return all(map(np.array_equal, one.weights, other.weights))


# The Keras model.


@pytest.mark.parametrize(("hidden_units", "weights"), [(0, 6 * 4 + 4), (5, 6 * 5 + 5 + 5 * 4 + 4)])
def test_a_head_is_linear_or_has_one_hidden_layer(hidden_units, weights):
    assert build_head(6, 4, replace(LINEAR, hidden_units=hidden_units)).count_params() == weights


@pytest.mark.parametrize("hidden_units", [0, 5])
def test_its_outputs_are_probabilities(hidden_units):
    head = build_head(6, 4, replace(LINEAR, hidden_units=hidden_units))
    outputs = np.asarray(head(np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)))
    assert outputs.min() >= 0
    assert outputs.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)  # float32


# Training.


@pytest.fixture(scope="module")
def trained(features) -> TrainedHead:
    return train(features, LINEAR)[0]


def test_a_head_learns_classes_that_differ_by_colour(trained, features):
    values, class_indices = features.of("test")
    # Of three classes a guess gets a third right.
    assert np.mean(to_keras(trained).predict(values, verbose=0).argmax(axis=1) == class_indices) >= 7 / 9


@pytest.mark.parametrize(
    "settings", [LINEAR, *(replace(LINEAR, hidden_units=5, activation=name) for name in ("relu", "silu", "tanh"))]
)
def test_the_epoch_with_the_lowest_log_loss_on_val_is_kept(features, settings):
    (trained,) = train(features, settings)
    values, class_indices = features.of("val")
    assert trained.best == min(trained.curve, key=lambda epoch: epoch.val.log_loss)
    in_keras = score(class_indices, to_keras(trained).predict(values, verbose=0))
    assert in_keras.accuracy == trained.best.val.accuracy
    assert in_keras.log_loss == pytest.approx(trained.best.val.log_loss, abs=1e-5)  # float32, summed in another order


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
@pytest.mark.parametrize(
    "settings", [LINEAR, *(replace(LINEAR, hidden_units=7, activation=name) for name in ("relu", "silu", "tanh"))]
)
def test_it_takes_the_steps_that_keras_takes(features, settings, optimizer):
    # All images in one batch and no dropout: order and random numbers play no part. No kernel starts at zero: the first
    # gradients of hidden units would be none but those of rounding, and both optimizers take whole steps along them.
    decay = 0.5 if optimizer == "adamw" else 0.0
    settings = replace(settings, optimizer=optimizer, dropout=0.0, weight_decay=decay)
    stack = Stack([settings], random_kernels(np.random.default_rng(0), settings.hidden_units), np.zeros(3, np.float32))
    start_keras(0)
    head = build_head(1280, 3, settings)
    head.set_weights(stack.weights(0))
    compile_classifier(head, learning_rate=0.01, weight_decay=decay, label_smoothing=0.05)
    if optimizer == "rmsprop":
        head.compile("rmsprop", head.loss)
        head.optimizer.learning_rate = 0.01
    values, class_indices = features.of("train")
    weights = np.ones(len(values), np.float32)
    own_losses = [stack.step(values, class_indices, weights, {})[0] / len(values) for _ in range(4)]
    losses = head.fit(values, np.eye(3)[class_indices], batch_size=99, epochs=4, verbose=0).history["loss"]
    assert losses == pytest.approx(own_losses, rel=1e-4)
    for own, of_keras in zip(stack.weights(0), head.get_weights(), strict=True):
        assert own == pytest.approx(of_keras, abs=1e-4)  # float32; a step is 0.01


@pytest.mark.parametrize("hidden_units", [0, 7])
def test_dropout_drops_its_share_and_scales_up_the_rest(features, hidden_units):
    values, class_indices = features.of("train")
    random = np.random.default_rng(1)
    kernels = random_kernels(random, hidden_units)
    still = HeadSettings(hidden_units, "relu", "adamw", 0.6, 1e-30, 0.0, 0.0)
    stack = Stack([still], kernels, np.zeros(3, np.float32))
    weights, losses, expected = np.ones(len(values), np.float32), [], []
    for _ in range(400):
        bits = {width: random_bits(random, len(values), width or 1280) for width in {0, hidden_units}}
        losses.append(stack.step(values, class_indices, weights, bits)[0] / len(values))
        hidden = values  # features are not negative, so the first `maximum` changes nothing
        for kernel in kernels:
            hidden = np.maximum(hidden, 0) * (random.random(hidden.shape) >= 0.6) / 0.4 @ kernel.T
        probabilities = np.exp(hidden) / np.exp(hidden).sum(axis=1, keepdims=True)
        expected.append(score(class_indices, probabilities).log_loss)
    assert np.mean(losses) == pytest.approx(np.mean(expected), rel=0.05)  # the scatter of each mean is 1 %


@pytest.mark.parametrize("hidden_units", [0, 5])
def test_no_class_is_preferred_before_training(features, hidden_units):
    (trained,) = train(features, replace(LINEAR, hidden_units=hidden_units))
    assert trained.curve[0].val.log_loss == pytest.approx(np.log(3), abs=1e-6)


def test_what_no_training_image_shows_says_nothing(features, trained):
    values, _ = features.of("train")
    is_unseen = ~values.any(axis=0)
    assert is_unseen.any()
    assert not trained.weights[0][is_unseen].any()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_weights(trained, features, seed):
    assert equal(trained, train(features, LINEAR, seed=seed)[0]) is (seed == 0)


def test_test_images_are_not_looked_at(trained, features):
    blind = replace(features, splits=np.where(features.splits == "test", "unused", features.splits))
    assert equal(trained, train(blind, LINEAR)[0])


def test_training_stops_after_patience(features):
    (trained,) = train(features, replace(LINEAR, learning_rate=100.0), patience=1, epochs=50)
    assert trained.curve[-1].epoch == trained.best.epoch + 1 < 50


def test_every_epoch_is_reported(features):
    reported: list[int] = []
    train_heads(features, [LINEAR], CONFIG, seed=0, on_epoch=reported.append)
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
    slow = replace(LINEAR, learning_rate=0.001)
    (without,), (helped,) = train(part, slow), train(part, slow, class_weight=class_weight)
    assert mean_probability(helped, part) > mean_probability(without, part) + 0.05


def test_balanced_weighs_each_class_the_same(features):
    part = rare(features)
    _, classes = part.of("train")
    plain = replace(LINEAR, dropout=0.0, label_smoothing=0.0)
    one, two = (train(part, plain, epochs=epochs, batch_size=99, class_weight="balanced")[0] for epochs in (1, 2))
    assert one.best.epoch == 1
    probabilities = to_keras(one).predict(part.of("train")[0], verbose=0)
    by_class = [score(classes[classes == index], probabilities[classes == index]).log_loss for index in range(3)]
    # One step per epoch: the loss of the second is that of what the first one left.
    assert two.curve[2].train_loss == pytest.approx(np.mean(by_class), rel=1e-4)


# Several at once.


@pytest.mark.parametrize("hidden_units", [0, 5])
def test_heads_that_are_trained_at_once_are_those_that_are_trained_alone(features, hidden_units):
    sweep = [
        replace(LINEAR, hidden_units=hidden_units, dropout=dropout, **values)
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
        replace(LINEAR, learning_rate=100.0),
        replace(LINEAR, learning_rate=0.0001),
        patience=1,
        epochs=8,
    )
    assert fast.curve[-1].epoch == fast.best.epoch + 1 < 8
    assert slow.curve[-1].epoch == slow.best.epoch == 8
    (alone,) = train(features, slow.settings, patience=1, epochs=8)
    assert slow.curve[-1].val.log_loss == pytest.approx(alone.curve[-1].val.log_loss, abs=1e-5)


# The sweep.


def test_a_sweep_is_every_combination():
    sweep = settings_of(config(kind=["linear", "mlp", "classic"], dropout=[0.0, 0.5], learning_rate=[0.1, 0.01, 0.001]))
    assert sweep == [
        *(HeadSettings(units, "silu", "adamw", *each, 0.001, 0.05) for units in (0, 5) for each in
          [(0.0, 0.1), (0.0, 0.01), (0.0, 0.001), (0.5, 0.1), (0.5, 0.01), (0.5, 0.001)]),
        HeadSettings(1024, "relu", "rmsprop", 0.0, 0.001, 0.0, 0.0),
    ]  # fmt: skip


def test_the_winner_has_the_lowest_log_loss_and_is_what_it_is_without_the_sweep(features):
    winner, ranked = find_head(features, config(learning_rate=[0.0001, 0.02, 30.0]), seed=0, watch=unwatched)
    losses = [trained.best.val.log_loss for trained in ranked]
    assert losses == sorted(losses)
    assert winner.settings == ranked[0].settings
    alone, _ = find_head(features, config(learning_rate=winner.settings.learning_rate), seed=0, watch=unwatched)
    assert equal(winner, alone)


def test_the_leaderboard_lists_every_head_with_its_settings(features, tmp_path):
    _, ranked = find_head(features, config(learning_rate=[0.0001, 0.02]), seed=0, watch=unwatched)
    write_leaderboard(tmp_path / "leaderboard.csv", ranked)
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert list(table.learning_rate) == [trained.settings.learning_rate for trained in ranked]
    assert list(table.val_log_loss) == pytest.approx([trained.best.val.log_loss for trained in ranked])


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


def test_the_learning_curve_has_each_share(features, trained):
    curve = learning_curve(features, trained, config(learning_curve=[0.5, 0.1]), seed=0, watch=unwatched)
    (half,) = train(features, LINEAR, share=0.5)
    assert list(curve) == [0.1, 0.5]
    assert curve[0.5] == half.best.val.accuracy
