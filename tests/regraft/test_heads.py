from dataclasses import replace

import keras
import numpy as np
import pytest

from regraft.config import TrainHead
from regraft.heads import TrainedHead, build_head, to_keras, train_heads
from regraft.metrics import score
from regraft.networks import start_keras

SETTINGS = TrainHead(
    hidden_units=0,
    dropout=0.2,
    learning_rate=0.01,
    weight_decay=0.001,
    label_smoothing=0.05,
    batch_size=8,
    epochs=6,
    patience=12,
)


def settings(**values: float) -> TrainHead:
    return SETTINGS.model_copy(update=values)


def train(features, *sweep: TrainHead, seed: int = 0) -> list[TrainedHead]:
    return train_heads(features, sweep, seed=seed, on_epoch=lambda _: None)


# The Keras model.


@pytest.mark.parametrize(("hidden_units", "weights"), [(0, 6 * 4 + 4), (5, 6 * 5 + 5 + 5 * 4 + 4)])
def test_a_head_is_linear_or_has_one_hidden_layer(hidden_units, weights):
    assert build_head(6, 4, settings(hidden_units=hidden_units)).count_params() == weights


@pytest.mark.parametrize("hidden_units", [0, 5])
def test_its_outputs_are_probabilities(hidden_units):
    head = build_head(6, 4, settings(hidden_units=hidden_units))
    outputs = np.asarray(head(np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)))
    assert outputs.min() >= 0
    assert outputs.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)  # float32


# Training.


@pytest.fixture(scope="module")
def trained(features) -> TrainedHead:
    return train(features, SETTINGS)[0]


def test_a_head_learns_classes_that_differ_by_colour(trained, features):
    values, class_indices = features.of("test")
    # Of three classes a guess gets a third right.
    assert np.mean(to_keras(trained).predict(values, verbose=0).argmax(axis=1) == class_indices) >= 7 / 9


@pytest.mark.parametrize("hidden_units", [0, 5])
def test_the_epoch_with_the_lowest_log_loss_on_val_is_kept(features, hidden_units):
    (trained,) = train(features, settings(hidden_units=hidden_units))
    values, class_indices = features.of("val")
    assert trained.best == min(trained.curve, key=lambda epoch: epoch.val.log_loss)
    in_keras = score(class_indices, to_keras(trained).predict(values, verbose=0))
    assert in_keras.accuracy == trained.best.val.accuracy
    assert in_keras.log_loss == pytest.approx(trained.best.val.log_loss, abs=1e-5)  # float32, summed in another order


@pytest.mark.parametrize("hidden_units", [0, 7])
def test_it_takes_the_steps_that_keras_takes(features, hidden_units):
    # All images in one batch and no dropout: order and random numbers play no part. The first head stands still.
    shared = {"hidden_units": hidden_units, "dropout": 0.0, "batch_size": 99, "epochs": 4, "weight_decay": 0.5}
    start, expected = train(features, settings(**shared, learning_rate=1e-30), settings(**shared))
    start_keras(0)
    head = build_head(1280, 3, expected.settings)
    head.set_weights(start.weights)
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    head.compile(optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=0.05))
    values, class_indices = features.of("train")
    history = head.fit(values, np.eye(3)[class_indices], batch_size=99, epochs=expected.best.epoch, verbose=0)
    assert expected.best.epoch > 0
    own_losses = [epoch.train_loss for epoch in expected.curve[1 : 1 + expected.best.epoch]]
    assert history.history["loss"] == pytest.approx(own_losses, rel=1e-5)
    for own, of_keras in zip(expected.weights, head.get_weights(), strict=True):
        assert own == pytest.approx(of_keras, abs=1e-5)  # float32; a step is 0.01


@pytest.mark.parametrize("hidden_units", [0, 7])
def test_dropout_drops_its_share_and_scales_up_the_rest(features, hidden_units):
    fixed = {"hidden_units": hidden_units, "learning_rate": 1e-30, "label_smoothing": 0.0}
    still = settings(**fixed, dropout=0.6, epochs=400, patience=400)
    (trained,) = train(features, still)
    values, class_indices = features.of("train")
    random, losses = np.random.default_rng(1), []
    for _ in range(400):
        hidden = values
        for kernel, bias in zip(trained.weights[::2], trained.weights[1::2], strict=True):
            hidden = np.maximum(hidden, 0) * (random.random(hidden.shape) >= 0.6) / 0.4 @ kernel + bias
        probabilities = np.exp(hidden) / np.exp(hidden).sum(axis=1, keepdims=True)
        losses.append(score(class_indices, probabilities).log_loss)
    # Features are not negative, so the first `maximum` changes nothing. The scatter of each mean is 1 %.
    assert np.mean([epoch.train_loss or 0 for epoch in trained.curve[1:]]) == pytest.approx(np.mean(losses), rel=0.05)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_weights(trained, features, seed):
    other = train(features, SETTINGS, seed=seed)[0]
    assert all(map(np.array_equal, trained.weights, other.weights)) is (seed == 0)


def test_test_images_are_not_looked_at(trained, features):
    blind = replace(features, splits=np.where(features.splits == "test", "unused", features.splits))
    assert all(map(np.array_equal, trained.weights, train(blind, SETTINGS)[0].weights))


def test_training_stops_after_patience(features):
    (trained,) = train(features, settings(learning_rate=100.0, patience=1, epochs=50))
    assert trained.curve[-1].epoch == trained.best.epoch + 1 < 50


def test_every_epoch_is_reported(features):
    reported: list[int] = []
    train_heads(features, [SETTINGS], seed=0, on_epoch=reported.append)
    assert reported == [1, 2, 3, 4, 5, 6]


# Several at once.


@pytest.mark.parametrize("hidden_units", [0, 5])
def test_heads_that_are_trained_at_once_are_those_that_are_trained_alone(features, hidden_units):
    sweep = [
        settings(hidden_units=hidden_units, dropout=dropout, **values)
        for dropout in (0.5, 0.0)
        for values in ({}, {"learning_rate": 0.1}, {"weight_decay": 0.5}, {"label_smoothing": 0.3})
    ]
    for alone, together in zip(sweep, train(features, *sweep), strict=True):
        (expected,) = train(features, alone)
        assert together.settings == alone
        assert together.best.epoch == expected.best.epoch
        for own, other in zip(together.weights, expected.weights, strict=True):
            assert own == pytest.approx(other, abs=1e-4)  # float32, summed in another order


def test_one_whose_patience_is_over_leaves_and_the_others_go_on(features):
    fast, slow = train(
        features,
        settings(learning_rate=100.0, patience=1, epochs=8),
        settings(learning_rate=0.0001, patience=1, epochs=8),
    )
    assert fast.curve[-1].epoch == fast.best.epoch + 1 < 8
    assert slow.curve[-1].epoch == slow.best.epoch == 8
    (alone,) = train(features, slow.settings)
    assert slow.curve[-1].val.log_loss == pytest.approx(alone.curve[-1].val.log_loss, abs=1e-5)
