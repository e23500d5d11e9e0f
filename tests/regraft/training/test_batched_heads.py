from dataclasses import replace

import numpy as np
import pytest

from regraft.training.batched_heads import HeadSettings, Stack, glorot_uniform, random_bits
from regraft.training.keras_models import start_keras
from regraft.training.keras_network import build_head
from regraft.training.metrics import score
from tests.support.heads import MLP
from tests.support.in_keras import compile_classifier


def random_kernels(random: np.random.Generator, hidden_units: int) -> list[np.ndarray]:
    """Kernels for a `Stack` of heads for 1,280 features and three classes, none of them zero."""
    return [glorot_uniform(random, 1280, hidden_units), glorot_uniform(random, hidden_units, 3)]


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
@pytest.mark.parametrize("settings", [replace(MLP, activation=name) for name in ("relu", "silu", "tanh")])
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


def test_dropout_drops_its_share_and_scales_up_the_rest(features):
    values, class_indices = features.of("train")
    random = np.random.default_rng(1)
    kernels = random_kernels(random, 7)
    still = HeadSettings(7, "relu", "adamw", 0.6, 1e-30, 0.0, 0.0)
    stack = Stack([still], kernels, np.zeros(3, np.float32))
    weights, losses, expected = np.ones(len(values), np.float32), [], []
    for _ in range(400):
        bits = {width: random_bits(random, len(values), width or 1280) for width in (0, 7)}
        losses.append(stack.step(values, class_indices, weights, bits)[0] / len(values))
        hidden = values  # features are not negative, so the first `maximum` changes nothing
        for kernel in kernels:
            hidden = np.maximum(hidden, 0) * (random.random(hidden.shape) >= 0.6) / 0.4 @ kernel.T
        probabilities = np.exp(hidden) / np.exp(hidden).sum(axis=1, keepdims=True)
        expected.append(score(class_indices, probabilities).log_loss)
    assert np.mean(losses) == pytest.approx(np.mean(expected), rel=0.05)  # the scatter of each mean is 1 %
