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
from regraft.backbones.trunk import ACTIVATIONS, FEATURES, Trunk
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
    converted (`Trunk.agreement`); otherwise with the whole Keras model.

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

        def by_numpy(head: Head) -> Expected:
            return _on_photos(
                lambda prepared: head.probabilities(trunk.run(prepared, with_activations=False)[0]), preparation
            )

        return TrainedPart(trained, FEATURES, None, head, by_numpy)
    model = build_network(backbone, network)
    source = PREPARED if trained == "all" else ACTIVATIONS
    start = model.input if trained == "all" else model.get_layer(backbone.cut).output
    graph = convert_keras(_between(start, model.get_layer(FEATURES).output), input_name=source, output_names=[FEATURES])

    def expected(head: Head) -> Expected:
        """The model is one for all heads, so what this returned before no longer counts."""
        layers = [model.get_layer(name) for name in HEAD_LAYERS[-len(head.weights) // 2 :]]
        for number, layer in enumerate(layers):
            layer.set_weights(head.weights[2 * number : 2 * number + 2])
        return _on_photos(lambda prepared: model.predict_on_batch(prepared.astype(np.float32)), preparation)

    return TrainedPart(trained, source, graph, head, expected)


def _between(start: "keras.KerasTensor", end: "keras.KerasTensor") -> "keras.Model":
    import keras

    return keras.Model(start, end, name="trained")


def _on_photos(compute: Compute, preparation: Preparation) -> Expected:
    return lambda photos: compute(np.stack([preparation(photo) for photo in photos]))
