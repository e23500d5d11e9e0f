import re

import numpy as np
import pytest

from regraft.core.errors import InvalidParams
from regraft.training.keras_network import to_keras
from regraft.training.layers import choose_layers, learning_rates, logits_of
from regraft.training.network_file import read_head
from tests.support.networks import load_joined


@pytest.fixture(scope="module")
def model(backbone, head):
    """The joined network, built once: `choose_layers` decides of every layer anew whether it is trained."""
    return load_joined(backbone, head)


def test_the_joined_network_is_the_head_on_the_backbone(model, head, features, dataset, preparation):
    image = preparation(dataset.read_photo(dataset.photos()[0]))[None].astype(np.float32)
    joined = model(image, training=False)
    # The features come from ONNX Runtime, in float32 summed in another order.
    assert np.asarray(joined) == pytest.approx(
        to_keras(read_head(head)).predict(features.read(np.array([0])), verbose=0), abs=1e-4
    )


@pytest.mark.parametrize(
    ("layers", "first"),
    [
        ("top", "block14_expand_conv"),
        ("block13_add", "block14_expand_conv"),
        ("block14_add", "block15_expand_conv"),
        ("block14_depthwise_bn", "block14_project_conv"),
        ("features", "head_logits"),
        ("all", "stem_conv"),
    ],
)
def test_what_comes_after_the_named_layer_is_trained_and_nothing_else(backbone, model, layers, first):
    network = choose_layers(model, backbone.cut, layers)
    convolutions = [layer.name for layer in model.layers if layer.weights and not layer.name.endswith("_bn")]
    trained = [variable.path.split("/")[-2] for variable in network.trainable_variables]
    assert list(dict.fromkeys(trained)) == convolutions[convolutions.index(first) :]
    assert network.input_shape[1:] == (
        (64, 64, 3) if layers == "all" else model.get_layer(backbone.cut).output.shape[1:]
    )


@pytest.mark.parametrize("layers", ["block99", "block13_project_bn", "stem_conv", "head_logits", "probabilities"])
def test_a_layer_that_does_not_exist_or_lies_below_the_cut_is_refused_with_what_is_possible(backbone, model, layers):
    with pytest.raises(InvalidParams) as error:
        choose_layers(model, backbone.cut, layers)
    assert re.match(
        r"fine_tune\.layers: expected all, top, or the name of a layer .*: block13_add, block14_exp", str(error.value)
    )
    assert str(error.value).endswith(f"Received: '{layers}'.")


def test_the_learning_rate_falls_from_block_to_block(backbone, model):
    network = choose_layers(model, backbone.cut, "top")
    rates = learning_rates(network, 0.5)
    assert len(rates) == len(network.trainable_variables)
    rates = {path.removeprefix("head/"): rate for path, rate in rates.items()}
    assert (rates["head_logits/kernel"], rates["head_logits/bias"], rates["top_conv/kernel"]) == (1, 1, 0.5)
    # Block 14 is residual, and so one block; block 15 is a chain, in which every convolution is one.
    block14 = {rate for path, rate in rates.items() if path.startswith("block14")}
    assert len(block14) == 1
    assert min(rates.values()) == block14.pop()


def test_logits_are_what_the_softmax_is_given(backbone, model):
    network = choose_layers(model, backbone.cut, "top")
    inputs = np.random.default_rng(0).normal(size=(2, *network.input_shape[1:])).astype(np.float32)
    logits = np.asarray(logits_of(network)(inputs))
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.asarray(network(inputs)) == pytest.approx(expected, rel=1e-4)
