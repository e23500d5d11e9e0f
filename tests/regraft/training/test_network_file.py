"""Trained heads and networks, in files and in Keras."""

import re
from dataclasses import replace
from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import layers

from regraft.core.errors import Damaged, InvalidParams, RegraftError
from regraft.training.keras_network import (
    choose_layers,
    load_into,
    network_of,
    to_keras,
    weights_of,
)
from regraft.training.network_file import (
    Head,
    HeadSettings,
    Network,
    build_head,
    read_head,
    read_network,
    write_head,
    write_network,
)
from tests.support.networks import VALUES, load_joined

LINEAR = HeadSettings(0, "relu", "adamw", 0.2, 0.001, 0.0, 0.0)
HIDDEN = replace(LINEAR, hidden_units=5)


def head_of(settings: HeadSettings = LINEAR) -> Head:
    random = np.random.default_rng(0)
    widths = [6, *([settings.hidden_units] if settings.hidden_units else []), 3]
    shapes = [shape for inputs, outputs in pairwise(widths) for shape in ((inputs, outputs), outputs)]
    return Head(settings, [random.normal(size=shape).astype(np.float32) for shape in shapes])


def network_with(weights: dict[str, np.ndarray]) -> Network:
    return Network("top" if weights else "head", head_of(), weights)


def as_lists(head: Head) -> list[list[float]]:
    return [array.tolist() for array in head.weights]


@pytest.mark.parametrize("settings", [LINEAR, HIDDEN])
def test_a_head_is_read_as_it_was_written_and_computes_the_same_in_keras(tmp_path, settings):
    head = head_of(settings)
    write_head(tmp_path / "head.npz", head)
    read = read_head(tmp_path / "head.npz")
    assert (read.settings, as_lists(read), read.feature_dim, read.num_classes) == (settings, as_lists(head), 6, 3)
    assert to_keras(read).predict(VALUES, verbose=0) == pytest.approx(head.probabilities(VALUES), abs=1e-6)


@pytest.mark.parametrize(
    "weights", [{}, {"block/kernel": np.ones((2, 3), np.float32), "../a\0/bias": np.zeros(3, "f4")}]
)
def test_a_network_is_read_as_it_was_written(tmp_path, weights):
    write_network(tmp_path / "model.npz", network_with(weights))
    read = read_network(tmp_path / "model.npz")
    assert (as_lists(read.head), read.trained) == (as_lists(head_of()), "top" if weights else "head")
    assert {path: array.tolist() for path, array in read.weights.items()} == {k: v.tolist() for k, v in weights.items()}


def test_a_damaged_file_and_one_of_another_kind_are_named(tmp_path):
    path = tmp_path / "model.npz"
    write_network(path, network_with({"a/kernel": np.ones((2, 3), np.float32)}))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged, match=r"model\.npz is damaged"):
        read_network(path)
    write_head(tmp_path / "head.npz", head_of())
    with pytest.raises(Damaged, match="a network that was trained"):
        read_network(tmp_path / "head.npz")
    write_head(tmp_path / "bad.npz", Head(HIDDEN, head_of().weights))
    with pytest.raises(Damaged, match="a head that was trained"):
        read_head(tmp_path / "bad.npz")


def joined(name: str = "block") -> keras.Model:
    image = keras.Input((4,))
    output = layers.BatchNormalization(name="norm")(layers.Dense(6, name=name)(image))
    for layer in build_head(6, 3, LINEAR).layers:
        output = layer(output)
    return keras.Model(image, output, name="small")


def test_a_network_in_keras_survives_the_way_through_the_file(tmp_path):
    model = joined()
    pretrained = weights_of(model)
    model.get_layer("norm").gamma.assign(np.full(6, 0.5))
    model.get_layer("head_logits").kernel.assign(np.full((6, 3), 0.25))
    network = network_of(model, LINEAR, "top", pretrained)
    assert set(network.weights) == {"norm/gamma"}  # nothing else differs from what it was
    write_network(tmp_path / "model.npz", network)
    other = joined()
    for path, variable in zip(pretrained, other.weights, strict=False):
        variable.assign(pretrained[path])
    load_into(other, read_network(tmp_path / "model.npz"))
    assert [weight.tolist() for weight in other.get_weights()] == [weight.tolist() for weight in model.get_weights()]


def test_weights_of_another_backbone_are_refused_and_change_nothing():
    model, other = joined(), joined("another")
    network = network_of(model, LINEAR, "top", {path: value + 1 for path, value in weights_of(model).items()})
    before = other.get_weights()
    with pytest.raises(RegraftError, match="do not fit the network small"):
        load_into(other, network)
    with pytest.raises(RegraftError, match="4 arrays of a head"):
        load_into(model, Network("head", head_of(HIDDEN), {}))
    assert all(np.array_equal(one, two) for one, two in zip(before, other.get_weights(), strict=True))


# Layers.


@pytest.fixture(scope="module")
def model(backbone, head):
    """The joined network, built once: `choose_layers` decides of every layer anew whether it is trained."""
    return load_joined(backbone, head)


@pytest.mark.parametrize(
    ("layers", "first"),
    [
        ("top", "block14_expand_conv"),
        ("block13_add", "block14_expand_conv"),
        ("block14_depthwise_bn", "block14_project_conv"),
        ("features", "head_logits"),
        ("all", "stem_conv"),
    ],
)
def test_everything_after_the_named_layer_is_trained_and_nothing_else(backbone, model, layers, first):
    network = choose_layers(model, backbone.cut, layers)
    convolutions = [layer.name for layer in model.layers if layer.weights and not layer.name.endswith("_bn")]
    trained = [variable.path.split("/")[-2] for variable in network.trainable_variables]
    assert list(dict.fromkeys(trained)) == convolutions[convolutions.index(first) :]
    assert network.input_shape[1:] == (
        (64, 64, 3) if layers == "all" else model.get_layer(backbone.cut).output.shape[1:]
    )


@pytest.mark.parametrize("layers", ["block99", "block13_project_bn", "stem_conv", "head_logits"])
def test_a_layer_that_does_not_exist_or_lies_below_the_cut_is_refused_with_the_possible_ones(backbone, model, layers):
    with pytest.raises(InvalidParams) as error:
        choose_layers(model, backbone.cut, layers)
    assert re.match(
        r"fine_tune\.layers: expected all, top, or the name of a layer .*: block13_add, block14_exp", str(error.value)
    )
    assert str(error.value).endswith(f"Received: '{layers}'.")
