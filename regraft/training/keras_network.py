"""Backbone and head as one Keras network: built, filled with trained weights, and cut for fine-tuning."""

from typing import TYPE_CHECKING

import numpy as np

from regraft.backbones.catalogue import Backbone
from regraft.backbones.cut_points import PREPROCESSING, check_top
from regraft.core.errors import InvalidParams, RegraftError
from regraft.training.network_file import HEAD_LAYERS, Head, HeadSettings, Network, Trained, build_head

if TYPE_CHECKING:
    import keras


def to_keras(head: Head) -> "keras.Model":
    """Return a trained head as a Keras model."""
    model = build_head(head.feature_dim, head.num_classes, head.settings)
    model.set_weights(head.weights)
    return model


def join(backbone: Backbone, head: "keras.Model") -> "keras.Model":
    """Return backbone and head as one flat model: prepared float32 RGB 0 to 255 in, probabilities out."""
    import keras

    network = backbone.build()
    output = network.output
    for layer in head.layers:
        output = layer(output)
    return keras.Model(network.input, output, name=backbone.name)


def build_network(backbone: Backbone, network: Network) -> "keras.Model":
    """Return a trained network as a Keras model: prepared float32 RGB 0 to 255 in, probabilities out.

    Raises:
        RegraftError: the network was trained on another backbone.
    """
    model = join(backbone, to_keras(network.head))
    load_into(model, network)
    return model


def weights_of(model: "keras.Model") -> dict[str, np.ndarray]:
    """Return copies of all weights outside the head, by the path of the Keras variable."""
    return {path: np.array(variable.numpy()) for path, variable in _variables(model).items()}


def network_of(
    model: "keras.Model", settings: HeadSettings, trained: Trained, pretrained: dict[str, np.ndarray]
) -> Network:
    """Return the trained weights of a Keras model.

    Args:
        model: from `join`.
        settings: of its head.
        trained: the part that was trained.
        pretrained: from `weights_of` of the untrained model; a weight that is the same to the bit is omitted.
    """
    head = [np.array(weight) for layer in _head_layers(model) for weight in layer.get_weights()]
    changed = {path: now for path, now in weights_of(model).items() if not np.array_equal(now, pretrained[path])}
    return Network(trained, Head(settings, head), changed)


def load_into(model: "keras.Model", network: Network) -> None:
    """Set the weights of a Keras model from `join`, with a head of the same shape, to those of a network.

    Raises:
        RegraftError: the network was trained on another backbone, or its head has another shape.
    """
    variables = _variables(model)
    head = [variable for layer in _head_layers(model) for variable in layer.weights]
    pairs = [(path, variables.get(path), value) for path, value in network.weights.items()]
    pairs += [(each.path, each, value) for each, value in zip(head, network.head.weights, strict=False)]
    wrong = [path for path, variable, value in pairs if variable is None or tuple(variable.shape) != value.shape]
    if wrong or len(head) != len(network.head.weights):
        raise RegraftError(
            f"The trained weights do not fit the network {model.name}: expected those of a training that started from "
            f"it, with a head of {len(head)} arrays. Received: {len(network.head.weights)} arrays of a head, and other "
            f"shapes of {', '.join(wrong[:3]) or 'none'}. Run `dvc repro`: it trains anew where params.yaml changed."
        )
    for _, variable, value in pairs:
        assert variable is not None  # it would be wrong
        variable.assign(value)


def _variables(model: "keras.Model") -> dict[str, "keras.Variable"]:
    """Return the weights of a network outside its head; not the states of random generators, which are no weights."""
    head = {id(variable) for layer in _head_layers(model) for variable in layer.weights}
    return {variable.path: variable for variable in model.weights if id(variable) not in head}


def _head_layers(model: "keras.Model") -> list["keras.Layer"]:
    return [layer for layer in model.layers if layer.name in HEAD_LAYERS]


def choose_layers(model: "keras.Model", cut: str, layers: str) -> "keras.Model":
    """Make the layers to train trainable, and return the part of the network that is run for it.

    Args:
        model: from `join`.
        cut: name of the layer whose activations are cached.
        layers: `all`; `top`, everything that comes after the cut; or the name of a layer, everything that comes after
            that one. It is the cut or lies above it.

    Returns:
        `model` for `all`, else the part above the cut: it takes activations.

    Raises:
        InvalidParams: above the cut there is nothing but the head, there is no such layer, or nothing that could be
            trained comes after it.
    """
    import keras

    network, chosen = model, set(model.layers)
    if layers != "all":
        check_top(model, cut)
        network = keras.Model(model.get_layer(cut).output, model.output, name="top")
        everything = set(network.layers)
        after = {layer.name: _layers_after(network, layer.name) for layer in network.layers[1:]}
        choices = {"top": everything, cut: everything, **after}
        possible = [name for name, following in choices.items() if any(map(_is_trained, following))]
        if layers not in possible:
            raise InvalidParams(
                f"fine_tune.layers: expected all, top, or the name of a layer at or above the cut with something to "
                f"train after it: {', '.join(possible[1:])}. Received: '{layers}'."
            )
        chosen = choices[layers]
    for layer in model.layers:
        layer.trainable = layer in chosen and _is_trained(layer)
    return network


def _is_trained(layer: "keras.Layer") -> bool:
    """Whether fine-tuning changes weights of a layer."""
    import keras

    is_fixed = isinstance(layer, keras.layers.BatchNormalization) or layer.name == PREPROCESSING
    return bool(layer.weights) and not is_fixed


def _layers_after(network: "keras.Model", name: str) -> set["keras.Layer"]:
    """Return the layers whose output depends on that of the layer `name`; none if there is no such layer."""
    reached: set[int] = set()
    after = set()
    for depth in sorted(network._nodes_by_depth, reverse=True):
        for node in network._nodes_by_depth[depth]:
            depends = any(id(tensor) in reached for tensor in node.input_tensors)
            if depends:
                after.add(node.operation)
            if depends or node.operation.name == name:
                reached |= {id(tensor) for tensor in node.outputs}
    return after


def logits_of(network: "keras.Model") -> "keras.Model":
    """Return a network from `choose_layers` without the softmax at its end."""
    import keras

    history = network.output._keras_history
    (logits,) = history.operation._inbound_nodes[history.node_index].input_tensors
    return keras.Model(network.input, logits, name=network.name)
