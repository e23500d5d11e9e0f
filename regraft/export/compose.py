"""The file to ship: one ONNX graph from raw uint8 pixels to probabilities, features and novelty.

It is composed, not converted anew: preprocessing + the frozen graph that filled the store + the trained part + the
head. So the head was trained on exactly what the file computes. Only where all layers were trained nothing of that
graph is left.

novelty = 1 - max over classes of the cosine to the class's prototype, which is the mean direction of the features of
some of its training photos (nearest class mean: Mensink et al., "Distance-based image classification", 2013).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from regraft import __version__
from regraft.backbones.catalogue import Backbone
from regraft.backbones.trunk import ACTIVATIONS, FEATURES, Trunk
from regraft.export.classifier import BORDER, as_bytes, facts_of, in_two_parts, with_facts
from regraft.onnx_graphs.convert import canonical, chained, convert_keras, part_of, renamed, with_uint8_input
from regraft.photos.preparation import OPSET, Preparation
from regraft.training.keras_network import build_network
from regraft.training.network_file import HEAD_LAYERS, Head, Network, Trained

# The lowest that goes with opset 18 (ONNX 1.13): ONNX Runtime from 1.14 on, of January 2023, reads the file, and so do
# onnxruntime-web, Triton and OpenVINO of that time. Graphs that never leave the store have a newer one.
IR_VERSION = 8
Expected = Callable[[Iterable[np.ndarray]], np.ndarray]  # raw photos, uint8 RGB of any size, to probabilities
_PREPARED = "prepared"  # what a graph takes before which there is only the preparation
_SMALLEST = 1e-12  # length of features below which they have no direction
_OUTPUTS = {
    "probabilities": "float32, (batch, classes), in the order of class_names",
    "features": "float32, (batch, feature_dim), pooled: what the head takes; for search and drift",
    "novelty": "float32, (batch,), 1 - cosine to the nearest class prototype: 0 alike, 1 unrelated",
}


@dataclass(frozen=True, slots=True)
class TrainedPart:
    """What was trained, ready to ship, and another computation of it to compare the file with."""

    trained: Trained
    source: str  # what it takes: FEATURES or ACTIVATIONS of the frozen graph, or prepared pixels
    graph: onnx.ModelProto | None  # from `source` to `features`; None where these come from the frozen graph
    head: Head  # as it was trained
    expected: Callable[[Head], Expected]  # what the file that ends in a head of this shape has to compute


def part_to_ship(network: Network, backbone: Backbone, trunk: Trunk, preparation: Preparation) -> TrainedPart:
    """Return the trained part of a network.

    Where only the head was trained the file is compared with that head in NumPy behind the frozen graph, which was
    compared with Keras when it was converted (`Trunk.agreement`); otherwise with the whole Keras model.

    Raises:
        RegraftError: the network was trained on another backbone.
    """

    def on_photos(compute: Callable[[np.ndarray], np.ndarray]) -> Expected:
        return lambda photos: compute(np.stack([preparation(photo) for photo in photos]))

    def by_numpy(head: Head) -> Expected:
        return on_photos(lambda prepared: head.probabilities(trunk.run(prepared, with_activations=False)[0]))

    trained, head = network.trained, network.head
    if trained == "head":
        return TrainedPart(trained, FEATURES, None, head, by_numpy)
    import keras

    model = build_network(backbone, network)
    start = model.input if trained == "all" else model.get_layer(backbone.cut).output
    source = _PREPARED if trained == "all" else ACTIVATIONS
    inner = keras.Model(start, model.get_layer(FEATURES).output, name="trained")

    def by_keras(head: Head) -> Expected:
        """The model is one for all heads, so what this returned before no longer counts."""
        for number, name in enumerate(HEAD_LAYERS[-len(head.weights) // 2 :]):
            model.get_layer(name).set_weights(head.weights[2 * number : 2 * number + 2])
        return on_photos(lambda prepared: model.predict_on_batch(prepared.astype(np.float32)))

    graph = convert_keras(inner, input_name=source, output_names=[FEATURES])
    return TrainedPart(trained, source, graph, head, by_keras)


def build_classifier(
    part: TrainedPart, backbone: Backbone, trunk: Trunk, preparation: Preparation, class_names: list[str]
) -> onnx.ModelProto:
    """Return the graph to ship, with the head as it was trained and without the output `novelty`: see `with_head`.

    Input `image`: uint8 RGB, shape (batch, height, width, 3), upright, any size. Outputs `probabilities`: float32,
    shape (batch, num_classes), and `features`: float32, shape (batch, feature_dim).

    Args:
        part: what was trained, from `part_to_ship`; what lies before it is taken from the frozen graph.
        backbone: the frozen network it started from.
        trunk: its graph.
        preparation: the preprocessing to build in.
        class_names: in the order of the outputs.
    """
    parts = [preparation.build_graph()]
    if part.source != _PREPARED:
        parts.append(part_of(trunk.read_graph(), [part.source]))
    if part.graph:
        parts.append(with_uint8_input(part.graph) if part.source == _PREPARED else part.graph)
    body = chained(parts)
    body = renamed(body, {body.graph.input[0].name: "image", body.graph.output[0].name: FEATURES})
    facts = _metadata(backbone, preparation, class_names, part.trained)
    return with_facts(_joined(body, head_graph(part.head)), facts)


def with_head(graph: onnx.ModelProto, head: Head, prototypes: np.ndarray) -> onnx.ModelProto:
    """Return a graph from `build_classifier` with this head, and with the output `novelty`: float32, shape (batch,).

    Args:
        graph: its body stays as it is, to the byte, and so does its metadata.
        head: of the same classes.
        prototypes: from `class_prototypes`.
    """
    body = onnx.load_from_string(in_two_parts(graph).body)
    return with_facts(_joined(body, head_graph(head, prototypes)), facts_of(graph))


def write_graph(path: Path, graph: onnx.ModelProto, facts: Mapping[str, str | None] | None = None) -> None:
    """Write a graph to ship, in the same bytes for the same graph, with these facts in its metadata as well."""
    path.write_bytes(as_bytes(with_facts(graph, facts or {})))


def head_graph(head: Head, prototypes: np.ndarray | None = None) -> onnx.ModelProto:
    """Return a head as ONNX, written from its arrays.

    Input `features`: float32, shape (batch, feature_dim). Outputs `probabilities`: float32, shape (batch, num_classes);
    with prototypes, from `class_prototypes`, also `novelty`: float32, shape (batch,), 0 to 2.
    """
    node, value = helper.make_node, FEATURES
    nodes: list[onnx.NodeProto] = []
    if head.settings.hidden_units:
        value = "activated"
        nodes += [node("Gemm", [FEATURES, "kernel0", "bias0"], ["hidden"]), node("Relu", ["hidden"], [value])]
    names = [f"{kind}{layer}" for layer in range(len(head.weights) // 2) for kind in ("kernel", "bias")]
    nodes += [node("Gemm", [value, *names[-2:]], ["logits"]), node("Softmax", ["logits"], ["probabilities"])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", head.num_classes])]
    arrays = dict(zip(names, head.weights, strict=True))
    if prototypes is not None:
        nodes += [
            node("ReduceL2", [FEATURES, "axis"], ["length"], keepdims=1),
            node("Max", ["length", "smallest"], ["safe_length"]),
            node("Div", [FEATURES, "safe_length"], ["direction"]),
            node("MatMul", ["direction", "prototypes"], ["cosines"]),
            node("ReduceMax", ["cosines", "axis"], ["cosine"], keepdims=0),
            node("Sub", ["one", "cosine"], ["novelty"]),
        ]
        outputs.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["batch"]))
        arrays |= {
            "prototypes": np.ascontiguousarray(prototypes.T, np.float32),
            "axis": np.array([1], np.int64),
            "smallest": np.array(_SMALLEST, np.float32),
            "one": np.array(1, np.float32),
        }
    given = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", head.feature_dim])
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "head", [given], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def class_prototypes(features: np.ndarray, class_indices: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the prototype of each class: float32, shape (num_classes, feature_dim), of length 1."""
    units = _directions(features.astype(np.float64))
    means = np.stack([units[class_indices == index].mean(axis=0) for index in range(num_classes)])
    return _directions(means).astype(np.float32)


def novelty_of(features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Return the output `novelty` of the graph, up to the order of sums: float32, shape (n,)."""
    return 1 - (_directions(features) @ prototypes.T).max(axis=1)


def _directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), vectors.dtype.type(_SMALLEST))


def _joined(body: onnx.ModelProto, head: onnx.ModelProto) -> onnx.ModelProto:
    """Return both as one canonical graph, in which the features between them are an output too."""
    body, head = compose.add_prefix(body, "body/"), compose.add_prefix(head, "head/")
    body.ir_version = head.ir_version = IR_VERSION
    outer, inner = body.graph.output[0].name, head.graph.input[0].name
    whole = compose.merge_models(body, head, io_map=[(outer, inner)])
    probabilities, *others = list(whole.graph.output)
    feature_dim = head.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    features = helper.make_tensor_value_info(outer, TensorProto.FLOAT, ["batch", feature_dim])
    del whole.graph.output[:]
    whole.graph.output.extend([probabilities, features, *others])
    del whole.opset_import[:]
    whole.opset_import.append(helper.make_opsetid("", OPSET))
    ends = [*whole.graph.input, *whole.graph.output]
    whole = canonical(renamed(whole, {value.name: value.name.partition("/")[2] for value in ends}))
    whole.ir_version = IR_VERSION
    onnx.checker.check_model(whole, full_check=True)
    return whole


def _metadata(backbone: Backbone, preparation: Preparation, class_names: list[str], trained: Trained) -> dict[str, str]:
    """Return the metadata of a file, whatever its head."""
    preprocessing = {
        "inside_the_graph": True,
        "crop": "centre square",
        "crop_fraction": preparation.crop_fraction,
        "resize": "bilinear, antialiased",
        "image_size": preparation.image_size,
    }
    facts = {
        "regraft_version": __version__,
        "class_names": json.dumps(class_names, ensure_ascii=False),
        "input": "image: uint8 RGB, (batch, height, width, 3), any size, upright (apply the EXIF orientation first)",
        "outputs": json.dumps(_OUTPUTS),
        "preprocessing": json.dumps(preprocessing),
        "backbone": backbone.name,
        "backbone_preprocessing": backbone.preprocessing,
        "backbone_weights_sha256": backbone.weights_digest,
        "backbone_weights_licence": backbone.recipe.weights_licence if backbone.weights else "none",
        "frozen_part": "float32" if trained != "all" else "none",
        "fine_tuned_from": {"head": "nothing: frozen backbone", "top": backbone.cut, "all": "the input"}[trained],
    }
    return facts | ({BORDER: FEATURES} if trained == "head" else {})
