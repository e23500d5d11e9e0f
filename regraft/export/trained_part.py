"""The trained part of a network: the graph of it that ships, and another computation of it to compare the file with.

A head is arrays, so its graph is written from them, and NumPy says what it has to compute. What was trained of the
backbone is converted from Keras, and Keras says it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from regraft.backbones.catalogue import Backbone
from regraft.backbones.runners import ACTIVATIONS, FEATURES
from regraft.backbones.trunk import Trunk
from regraft.onnx_graphs.convert import convert_keras
from regraft.photos.preparation import IR_VERSION, OPSET, Preparation
from regraft.training.keras_network import build_network
from regraft.training.network_file import Head, Network, Trained

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
    graph: onnx.ModelProto  # from `source` to `probabilities`
    expected: Expected  # what the file that ends in this graph has to compute


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
    trained = network.trained
    if trained == "head":
        graph, source, compute = (
            head_graph(network.head),
            FEATURES,
            _behind(trunk, network.head.probabilities, FEATURES),
        )
    else:
        model = build_network(backbone, network)
        rest, source = (model, PREPARED) if trained == "all" else (_above(model, backbone.cut), ACTIVATIONS)
        graph = convert_keras(rest, input_name=source, output_names=["probabilities"])
        compute = _by_keras(model)
        if trained == "top" and trunk.is_quantised:
            compute = _behind(trunk, rest.predict_on_batch, ACTIVATIONS)

    def expected(photos: Iterable[np.ndarray]) -> np.ndarray:
        return compute(np.stack([preparation(photo) for photo in photos]))

    return TrainedPart(trained, source, graph, expected)


def head_graph(head: Head) -> onnx.ModelProto:
    """Return a head as ONNX: `features`, float32 of shape (batch, feature_dim), to `probabilities`."""
    nodes, value = [], FEATURES
    if head.settings.hidden_units:
        nodes.append(helper.make_node("Gemm", [value, "kernel0", "bias0"], ["hidden"]))
        nodes += _ACTIVATIONS[head.settings.activation]
        value = "activated"
    names = [f"{kind}{layer}" for layer in range(len(head.weights) // 2) for kind in ("kernel", "bias")]
    nodes.append(helper.make_node("Gemm", [value, *names[-2:]], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"]))
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", head.feature_dim])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", head.num_classes])],
        [numpy_helper.from_array(array, name) for array, name in zip(head.weights, names, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


_ACTIVATIONS = {
    "relu": [helper.make_node("Relu", ["hidden"], ["activated"])],
    "tanh": [helper.make_node("Tanh", ["hidden"], ["activated"])],
    "silu": [
        helper.make_node("Sigmoid", ["hidden"], ["share"]),
        helper.make_node("Mul", ["hidden", "share"], ["activated"]),
    ],
}


def _above(model: "keras.Model", cut: str) -> "keras.Model":
    import keras

    return keras.Model(model.get_layer(cut).output, model.output, name="top")


def _by_keras(model: "keras.Model") -> Compute:
    return lambda prepared: model.predict_on_batch(prepared.astype(np.float32))


def _behind(trunk: Trunk, rest: Compute, source: str) -> Compute:
    """The trained part on what the frozen graph says of prepared photos."""

    def compute(prepared: np.ndarray) -> np.ndarray:
        features, activations = trunk.run(prepared, with_activations=source == ACTIVATIONS)
        return rest(features if activations is None else activations)

    return compute
