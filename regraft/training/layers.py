"""Which layers of a network fine-tuning changes, and how fast each may move."""

from typing import TYPE_CHECKING

from regraft.backbones import preprocessing
from regraft.backbones.catalogue import Backbone
from regraft.backbones.cut_points import check_top, cut_points
from regraft.core.errors import InvalidParams

if TYPE_CHECKING:
    import keras


def join(backbone: Backbone, head: "keras.Model") -> "keras.Model":
    """Return backbone and head as one flat model: prepared float32 RGB 0 to 255 in, probabilities out."""
    import keras

    network = backbone.build()
    output = network.output
    for layer in head.layers:
        output = layer(output)
    return keras.Model(network.input, output, name=backbone.name)


def choose_layers(model: "keras.Model", cut: str, layers: str) -> "keras.Model":
    """Make those layers trainable that are to be trained, and return the part of the network that is run for it.

    Args:
        model: from `join`.
        cut: name of the layer whose activations are cached.
        layers: `all`; `top`, everything that comes after the cut; or the name of a layer, everything that comes after
            that one. It is the cut or lies above it.

    Returns:
        `model` for `all`, else what lies above the cut: it takes activations.

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
    """Whether there is something in a layer that fine-tuning changes."""
    import keras

    is_fixed = isinstance(layer, keras.layers.BatchNormalization) or layer.name == preprocessing.NAME
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


def learning_rates(network: "keras.Model", decay: float) -> dict[str, float]:
    """Return the learning rate of each trainable variable as a multiple of that of the head, by the variable's path.

    It falls by the factor `decay` from block to block towards the input (Clark et al., "ELECTRA", 2020, appendix A).
    A block is what lies between two neighbouring cut points and has something to train: a residual block or an
    Inception module as a whole, a convolution where one follows the other.
    """
    points = {point.name for point in cut_points(network)}
    rates, depth, is_begun = {}, 0, False
    for layer in reversed(network.layers):
        if layer.name in points and is_begun:
            depth, is_begun = depth + 1, False
        for variable in layer.trainable_variables:
            rates[variable.path] = decay**depth
            is_begun = True
    return rates
