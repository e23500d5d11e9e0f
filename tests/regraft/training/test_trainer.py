"""The step of fine-tuning, and the folded network that it runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from regraft.training import trainer as trainers
from regraft.training.network_file import start_keras
from regraft.training.trainer import folded
from tests.support.networks import CLASSES, VALUES, build_small, trainer_of

TARGETS = np.eye(3, dtype=np.float32)[CLASSES]
INPUTS = np.random.default_rng(0).normal(size=(3, 9, 8, 4)).astype(np.float32)
CONVOLUTIONS = {
    "1 x 1": lambda: layers.Conv2D(6, 1, use_bias=False),
    "1 x 1, stride 2": lambda: layers.Conv2D(6, 1, 2),
    "3 x 3": lambda: layers.Conv2D(6, 3, padding="same"),
    "groups, dilated": lambda: layers.Conv2D(6, 3, groups=2, dilation_rate=2),
    "depthwise": lambda: layers.DepthwiseConv2D(3, padding="same", use_bias=False),
    "depthwise, stride 2": lambda: layers.DepthwiseConv2D(5, 2, padding="same"),
    "depthwise, valid": lambda: layers.DepthwiseConv2D(4, 2, padding="valid"),
    "depthwise, dilated": lambda: layers.DepthwiseConv2D(3, dilation_rate=2),
    "depthwise, two each": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
}


@pytest.fixture(autouse=True)
def _seeded():
    start_keras(0)


def test_a_step_is_that_of_adamw_in_keras(monkeypatch):
    monkeypatch.setattr(trainers, "WEIGHT_DECAY", 0.1)
    model, reference = build_small(), build_small()
    reference.set_weights(model.get_weights())
    for network in (model, reference):
        network.layers[2].rate = 0.0  # no dropout, whose state is each network's own
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    reference.compile(optimizer, keras.losses.CategoricalCrossentropy())
    trainer = trainer_of(model)
    for _ in range(5):
        loss = trainer.step(VALUES, TARGETS, 0.01)
        assert loss == pytest.approx(reference.train_on_batch(VALUES, TARGETS), rel=1e-5)
    for ours, theirs in zip(model.get_weights(), reference.get_weights(), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)  # both in float32, in another order


def test_a_state_that_is_restored_gives_the_same_next_step():
    trainer = trainer_of(build_small())
    trainer.step(VALUES, TARGETS, 0.01)
    state = trainer.state()
    losses = [trainer.step(VALUES, TARGETS, 0.01) for _ in range(3)]
    trainer.restore(state)
    assert [trainer.step(VALUES, TARGETS, 0.01) for _ in range(3)] == losses


def test_where_the_right_class_seems_impossible_there_is_still_a_gradient():
    model = build_small()
    model.layers[-2].bias.assign([0.0, 0.0, 60.0])  # the others have a probability that float32 cannot tell from zero
    before = model.layers[-2].bias.numpy()
    loss = trainer_of(model).step(VALUES, np.tile(np.array([1, 0, 0], np.float32), (len(VALUES), 1)), 0.01)
    assert loss == pytest.approx(60, abs=5)
    assert model.layers[-2].bias.numpy()[0] > before[0]


# Folded.


def network_of(*parts: layers.Layer) -> keras.Model:
    """A chain of layers with random weights, its BatchNorm frozen."""
    output = image = keras.Input((9, 8, 4))
    for part in parts:
        output = part(output)
    model, random = keras.Model(image, output), np.random.default_rng(1)
    for variable in model.weights:
        is_variance = "variance" in variable.path
        variable.assign(random.uniform(0.5, 2, variable.shape) if is_variance else random.normal(size=variable.shape))
    for layer in model.layers:
        layer.trainable = not isinstance(layer, layers.BatchNormalization)
    return model


def outputs_and_gradients(network: keras.Model, variables: list) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        outputs = network(INPUTS)
        loss = tf.reduce_sum(outputs**2)
    return [outputs.numpy(), *(np.asarray(gradient) for gradient in tape.gradient(loss, variables))]


def folded_names(network: keras.Model) -> list[str]:
    return [layer.name for layer in folded(network).layers if layer.name.endswith("_folded")]


@pytest.mark.parametrize("small_map", [0, 100])  # pixels; those of the inputs are 72
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_folded_network_has_the_same_outputs_and_gradients(name, small_map, monkeypatch):
    monkeypatch.setattr(trainers, "_SMALL_MAP", small_map)
    model = network_of(CONVOLUTIONS[name](), layers.BatchNormalization(), layers.ReLU(6.0))
    assert len(folded_names(model)) == 1
    variables = [variable.value for variable in model.trainable_variables]
    expected, received = (outputs_and_gradients(network, variables) for network in (model, folded(model)))
    for ours, theirs in zip(received, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4 * float(np.abs(theirs).max()))  # sums in another order


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"epsilon": 0.5}])
def test_every_kind_of_batchnorm_is_folded_and_shares_its_variables(options):
    model = network_of(layers.Conv2D(6, 1), layers.BatchNormalization(**options))
    quick = folded(model)
    model.set_weights([2 * weight for weight in model.get_weights()])
    assert len(folded_names(model)) == 1
    assert quick(INPUTS).numpy() == pytest.approx(model(INPUTS).numpy(), rel=1e-4, abs=1e-4)


def test_layers_that_cannot_be_folded_stay_as_they_are():
    image = keras.Input((9, 8, 4))
    used_twice = layers.Conv2D(4, 1)(image)
    normed = layers.BatchNormalization()(used_twice)
    with_activation = layers.BatchNormalization()(layers.Conv2D(4, 1, activation="relu")(normed))
    shared = layers.Conv2D(4, 1)
    twice = layers.BatchNormalization()(shared(layers.BatchNormalization()(shared(with_activation))))
    model = keras.Model(image, layers.Add()([used_twice, twice]))
    model.trainable = False
    assert folded_names(model) == []
    trained = network_of(layers.Conv2D(4, 1), layers.BatchNormalization())
    trained.layers[-1].trainable = True
    assert folded_names(trained) == []
