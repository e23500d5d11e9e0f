"""The step of fine-tuning, on a network of a few numbers."""

import keras
import numpy as np
import pytest

from regraft.training.keras_models import start_keras
from regraft.training.trainer import Trainer
from tests.support.networks import CLASSES, IMAGES, VALUES, build_small, trainer_of


def test_a_step_is_that_of_adamw_in_keras():
    start_keras(0)
    model, reference = build_small(), build_small()
    reference.set_weights(model.get_weights())
    for network in (model, reference):
        network.layers[2].rate = 0.0  # no dropout, whose state is each network's own
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    reference.compile(optimizer, keras.losses.CategoricalCrossentropy())
    trainer, targets = trainer_of(model, weight_decay=0.1), np.eye(3, dtype=np.float32)[CLASSES]
    for _ in range(5):
        loss = trainer.step(VALUES, targets, 0.01)
        assert loss == pytest.approx(reference.train_on_batch(VALUES, targets), rel=1e-5)
    for ours, theirs in zip(model.get_weights(), reference.get_weights(), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)  # both in float32, in another order


def test_weight_decay_shrinks_kernels_and_not_biases():
    start_keras(0)
    model = build_small()
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    # Equal kernels and equal targets for all classes: there is no gradient but for rounding.
    trainer_of(model, weight_decay=0.5).step(VALUES[:4], np.full((4, 3), 1 / 3, np.float32), 0.1)
    assert [weight.flat[0] for weight in model.get_weights()] == pytest.approx([0.95, 1.0, 0.95, 1.0], abs=0.01)


def test_a_rate_of_zero_leaves_a_variable_as_it_is():
    start_keras(0)
    model = build_small()
    before = model.get_weights()
    rates = {variable.path: float("dense_1" in variable.path) for variable in model.trainable_variables}
    Trainer(model, rates, weight_decay=0.1, dtype="float32").step(VALUES, np.eye(3, dtype=np.float32)[CLASSES], 0.1)
    assert [np.array_equal(*pair) for pair in zip(model.get_weights(), before, strict=True)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_state_that_is_restored_gives_the_same_next_step():
    start_keras(0)
    trainer, targets = trainer_of(build_small()), np.eye(3, dtype=np.float32)[CLASSES]
    trainer.step(VALUES, targets, 0.01)
    state = trainer.state()
    losses = [trainer.step(VALUES, targets, 0.01) for _ in range(3)]
    trainer.restore(state)
    assert [trainer.step(VALUES, targets, 0.01) for _ in range(3)] == losses


def test_where_the_right_class_seems_impossible_there_is_still_a_gradient():
    start_keras(0)
    model = build_small()
    model.layers[-2].bias.assign([0.0, 0.0, 60.0])  # the others have a probability that float32 cannot tell from zero
    before = model.layers[-2].bias.numpy()
    loss = trainer_of(model).step(VALUES, np.tile(np.array([1, 0, 0], np.float32), (len(VALUES), 1)), 0.01)
    assert loss == pytest.approx(60, abs=5)
    assert model.layers[-2].bias.numpy()[0] > before[0]


def test_weights_can_be_taken_and_given_back():
    start_keras(0)
    model = build_small()
    trainer, before = trainer_of(model), model.predict(VALUES, verbose=0)
    weights = trainer.weights()
    trainer.step(VALUES, np.eye(3, dtype=np.float32)[CLASSES], 0.1)
    assert not np.array_equal(trainer.predict(IMAGES), before)
    trainer.set_weights(weights)
    assert trainer.predict(IMAGES) == pytest.approx(before, rel=1e-5)
