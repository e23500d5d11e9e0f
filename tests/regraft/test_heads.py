from dataclasses import replace

import numpy as np
import pytest

from regraft.config import TrainHead
from regraft.heads import build_head, train_head
from regraft.metrics import score

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


@pytest.mark.parametrize(("hidden_units", "weights"), [(0, 6 * 4 + 4), (5, 6 * 5 + 5 + 5 * 4 + 4)])
def test_a_head_is_linear_or_has_one_hidden_layer(hidden_units, weights):
    assert build_head(6, 4, SETTINGS.model_copy(update={"hidden_units": hidden_units})).count_params() == weights


@pytest.mark.parametrize("hidden_units", [0, 5])
def test_its_outputs_are_probabilities(hidden_units):
    head = build_head(6, 4, SETTINGS.model_copy(update={"hidden_units": hidden_units}))
    outputs = np.asarray(head(np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)))
    assert outputs.min() >= 0
    assert outputs.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)  # float32


@pytest.fixture(scope="module")
def trained(features):
    """A head, its learning curve and its best epoch."""
    return train_head(features, SETTINGS, seed=0, on_epoch=lambda _: None)


def test_a_head_learns_classes_that_differ_by_colour(trained, features):
    values, class_indices = features.of("test")
    # Of three classes a guess gets a third right.
    assert np.mean(trained[0].predict(values, verbose=0).argmax(axis=1) == class_indices) >= 7 / 9


def test_the_epoch_with_the_lowest_log_loss_on_val_is_kept(trained, features):
    head, curve, best = trained
    values, class_indices = features.of("val")
    assert best == min(curve, key=lambda epoch: epoch.val.log_loss)
    assert score(class_indices, head.predict(values, verbose=0)) == best.val


def test_test_images_are_not_looked_at(features):
    spoilt = replace(features, values=np.where((features.splits == "test")[:, None], np.nan, features.values))
    settings = SETTINGS.model_copy(update={"epochs": 1})
    (one, _, _), (other, _, _) = (
        train_head(part, settings, seed=0, on_epoch=lambda _: None) for part in (features, spoilt)
    )
    assert all(np.array_equal(*pair) for pair in zip(one.get_weights(), other.get_weights(), strict=True))


def test_training_stops_after_patience(features):
    settings = SETTINGS.model_copy(update={"learning_rate": 100.0, "patience": 1, "epochs": 50})
    _, curve, best = train_head(features, settings, seed=0, on_epoch=lambda _: None)
    assert curve[-1].epoch == best.epoch + 1 < 50
