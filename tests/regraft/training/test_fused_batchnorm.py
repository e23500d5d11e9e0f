"""A network that is folded for training computes what it did, with the same gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from regraft.training import fused_batchnorm as folding
from regraft.training.fused_batchnorm import folded
from regraft.training.keras_models import start_keras

INPUTS = np.random.default_rng(0).normal(size=(3, 9, 8, 4)).astype(np.float32)
CONVOLUTIONS = {
    "1 x 1": lambda: layers.Conv2D(6, 1, use_bias=False),
    "1 x 1, stride 2": lambda: layers.Conv2D(6, 1, 2),
    "3 x 3": lambda: layers.Conv2D(6, 3, padding="same"),
    "groups": lambda: layers.Conv2D(6, 3, groups=2),
    "dilated": lambda: layers.Conv2D(6, 3, dilation_rate=2),
    "depthwise": lambda: layers.DepthwiseConv2D(3, padding="same", use_bias=False),
    "depthwise, stride 2": lambda: layers.DepthwiseConv2D(5, 2, padding="same"),
    "depthwise, valid": lambda: layers.DepthwiseConv2D(4, 2, padding="valid"),
    "depthwise, dilated": lambda: layers.DepthwiseConv2D(3, dilation_rate=2),
    "depthwise, two each": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
}
FOLDED = "_folded"


def network_of(*parts: layers.Layer, size: tuple[int, int] = (9, 8)) -> keras.Model:
    """A chain of layers with random weights, its BatchNorm frozen."""
    image = keras.Input((*size, 4))
    output = image
    for part in parts:
        output = part(output)
    model = keras.Model(image, output)
    random = np.random.default_rng(1)
    for variable in model.weights:
        variable.assign(
            random.uniform(0.5, 2, variable.shape)
            if "variance" in variable.path
            else random.normal(size=variable.shape)
        )
    for layer in model.layers:
        layer.trainable = not isinstance(layer, layers.BatchNormalization)
    return model


def outputs_and_gradients(network: keras.Model, variables: list) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        outputs = network(INPUTS)
        loss = tf.reduce_sum(outputs**2)
    return [outputs.numpy(), *(np.asarray(gradient) for gradient in tape.gradient(loss, variables))]


def folded_names(network: keras.Model) -> list[str]:
    return [layer.name for layer in folded(network).layers if layer.name.endswith(FOLDED)]


@pytest.mark.parametrize("small_map", [0, 100])  # pixels; those of the inputs are 72
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_folded_network_has_the_same_outputs_and_gradients(name, small_map, monkeypatch):
    monkeypatch.setattr(folding, "_SMALL_MAP", small_map)
    start_keras(0)
    model = network_of(CONVOLUTIONS[name](), layers.BatchNormalization(), layers.ReLU(6.0))
    assert len(folded_names(model)) == 1
    variables = [variable.value for variable in model.trainable_variables]
    expected, received = (outputs_and_gradients(network, variables) for network in (model, folded(model)))
    for ours, theirs in zip(received, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4 * float(np.abs(theirs).max()))  # sums in another order


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"epsilon": 0.5}])
def test_every_kind_of_batchnorm_is_folded(options):
    start_keras(0)
    model = network_of(layers.Conv2D(6, 1), layers.BatchNormalization(**options))
    assert len(folded_names(model)) == 1
    assert folded(model)(INPUTS).numpy() == pytest.approx(model(INPUTS).numpy(), abs=1e-4)


def test_the_variables_are_shared():
    start_keras(0)
    model = network_of(layers.Conv2D(6, 1), layers.BatchNormalization())
    quick = folded(model)
    model.set_weights([2 * weight for weight in model.get_weights()])
    assert quick(INPUTS).numpy() == pytest.approx(model(INPUTS).numpy(), rel=1e-4, abs=1e-4)


def test_what_cannot_be_folded_is_left_as_it_is():
    start_keras(0)
    image = keras.Input((9, 8, 4))
    used_twice = layers.Conv2D(4, 1)(image)
    normed = layers.BatchNormalization()(used_twice)
    with_activation = layers.BatchNormalization()(layers.Conv2D(4, 1, activation="relu")(normed))
    shared = layers.Conv2D(4, 1)
    twice = layers.BatchNormalization()(shared(layers.BatchNormalization()(shared(with_activation))))
    model = keras.Model(image, layers.Add()([used_twice, twice]))
    model.trainable = False
    assert folded_names(model) == []
    assert folded(model)(INPUTS).numpy() == pytest.approx(model(INPUTS).numpy(), abs=1e-6)


def test_a_batchnorm_that_is_trained_is_not_folded():
    start_keras(0)
    model = network_of(layers.Conv2D(4, 1), layers.BatchNormalization())
    model.layers[-1].trainable = True
    assert folded_names(model) == []


def test_lower_precision_stays_inside():
    start_keras(0)
    model = network_of(layers.Conv2D(6, 1), layers.BatchNormalization(), layers.DepthwiseConv2D(3))
    variables = [variable.value for variable in model.trainable_variables]
    quick = folded(model, compute_dtype="bfloat16")
    expected, received = (outputs_and_gradients(network, variables) for network in (model, quick))
    for ours, theirs in zip(received, expected, strict=True):
        assert ours.dtype == np.float32
        assert ours == pytest.approx(theirs, abs=0.03 * float(np.abs(theirs).max()))  # bfloat16 has 8 bits
    assert not np.array_equal(received[0], expected[0])
