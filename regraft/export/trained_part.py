"""The trained part of a network: the graph of it that ships, and another computation of it to compare the file with.

A head is arrays, so its graph is written from them (`head_graph`), and NumPy says what it has to compute. What was
trained of the backbone is converted from Keras, and Keras says it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from regraft.backbones.catalogue import Backbone
from regraft.backbones.runners import ACTIVATIONS, FEATURES
from regraft.backbones.trunk import Trunk
from regraft.onnx_graphs.convert import convert_keras
from regraft.photos.preparation import Preparation
from regraft.training.keras_network import build_network
from regraft.training.network_file import HEAD_LAYERS, Head, Network, Trained

if TYPE_CHECKING:
    import keras

Expected = Callable[[Iterable[np.ndarray]], np.ndarray]  # raw photos, uint8 RGB of any size, to probabilities
Compute = Callable[[np.ndarray], np.ndarray]  # prepared photos, or what a graph says of them, to probabilities
PREPARED = "prepared"  # what a graph takes before which there is only the preparation


@dataclass(frozen=True, slots=True)
class TrainedPart:
    """What was trained, ready to ship."""

    trained: Trained
    source: str  # what it takes: FEATURES or ACTIVATIONS of the frozen graph, or PREPARED pixels
    graph: onnx.ModelProto | None  # from `source` to `features`; None where these come from the frozen graph
    head: Head  # as it was trained
    expected: Callable[[Head], Expected]  # what the file that ends in a head of this shape has to compute


def part_to_ship(network: Network, backbone: Backbone, trunk: Trunk, preparation: Preparation) -> TrainedPart:
    """Return the trained part of a network.

    The file is compared with the head in NumPy behind the frozen graph, which was compared with Keras when it was
    converted (`Trunk.agreement`); otherwise with the whole Keras model, or with its top behind a quantised graph.

    Args:
        network: what was trained.
        backbone: what it started from.
        trunk: its frozen graph.
        preparation: of photos.

    Raises:
        RegraftError: the network was trained on another backbone.
    """
    trained, head = network.trained, network.head
    if trained == "head":
        by_numpy = lambda head: _on_photos(_behind(trunk, head.probabilities, FEATURES), preparation)  # noqa: E731
        return TrainedPart(trained, FEATURES, None, head, by_numpy)
    model = build_network(backbone, network)
    source = PREPARED if trained == "all" else ACTIVATIONS
    start = model.input if trained == "all" else model.get_layer(backbone.cut).output
    graph = convert_keras(_between(start, model.get_layer(FEATURES).output), input_name=source, output_names=[FEATURES])
    compute = _by_keras(model)
    if trained == "top" and trunk.is_quantised:
        compute = _behind(trunk, _between(start, model.output).predict_on_batch, ACTIVATIONS)

    def expected(head: Head) -> Expected:
        """The model is one for all heads, so what this returned before no longer counts."""
        layers = [model.get_layer(name) for name in HEAD_LAYERS[-len(head.weights) // 2 :]]
        for number, layer in enumerate(layers):
            layer.set_weights(head.weights[2 * number : 2 * number + 2])
        return _on_photos(compute, preparation)

    return TrainedPart(trained, source, graph, head, expected)


def _between(start: "keras.KerasTensor", end: "keras.KerasTensor") -> "keras.Model":
    import keras

    return keras.Model(start, end, name="trained")


def _on_photos(compute: Compute, preparation: Preparation) -> Expected:
    return lambda photos: compute(np.stack([preparation(photo) for photo in photos]))


def _by_keras(model: "keras.Model") -> Compute:
    return lambda prepared: model.predict_on_batch(prepared.astype(np.float32))


def _behind(trunk: Trunk, rest: Compute, source: str) -> Compute:
    """The trained part on what the frozen graph says of prepared photos."""

    def compute(prepared: np.ndarray) -> np.ndarray:
        features, activations = trunk.run(prepared, with_activations=source == ACTIVATIONS)
        return rest(features if activations is None else activations)

    return compute
