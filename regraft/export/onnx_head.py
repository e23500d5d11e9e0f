"""The end of a shipped file as ONNX, written from arrays: from features to probabilities, and to how novel a photo is.

A photo is as novel as its features point away from those of all classes: novelty = 1 - max over classes of the cosine
to the class's prototype, which is the mean direction of the features of some of its training photos (a nearest class
mean classifier: Mensink et al., "Distance-based image classification", 2013). It says how unlike the known classes a
photo is, whatever the head makes of it, since a head is most sure where features are large, not where they are known.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from regraft.backbones.trunk import FEATURES
from regraft.photos.preparation import IR_VERSION, OPSET
from regraft.serving.novelty import rank_of
from regraft.training.network_file import Head

_SMALLEST = 1e-12  # length of features below which they have no direction


def head_graph(head: Head, prototypes: np.ndarray | None = None) -> onnx.ModelProto:
    """Return a head as ONNX.

    Input `features`: float32, shape (batch, feature_dim). Outputs `probabilities`: float32, shape (batch, num_classes);
    with prototypes also `novelty`: float32, shape (batch,), 0 to 2.

    Args:
        head: its weights.
        prototypes: from `class_prototypes`.
    """
    nodes, value = [], FEATURES
    if head.settings.hidden_units:
        nodes.append(helper.make_node("Gemm", [value, "kernel0", "bias0"], ["hidden"]))
        nodes.append(helper.make_node("Relu", ["hidden"], ["activated"]))
        value = "activated"
    names = [f"{kind}{layer}" for layer in range(len(head.weights) // 2) for kind in ("kernel", "bias")]
    nodes.append(helper.make_node("Gemm", [value, *names[-2:]], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"]))
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", head.num_classes])]
    tensors = [numpy_helper.from_array(array, name) for array, name in zip(head.weights, names, strict=True)]
    if prototypes is not None:
        nodes += _novelty()
        outputs.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["batch"]))
        constants = {
            "prototypes": np.ascontiguousarray(prototypes.T, np.float32),
            "axis": np.array([1], np.int64),
            "smallest": np.array(_SMALLEST, np.float32),
            "one": np.array(1, np.float32),
        }
        tensors += [numpy_helper.from_array(array, name) for name, array in constants.items()]
    value_in = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", head.feature_dim])
    graph = helper.make_graph(nodes, "head", [value_in], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def class_prototypes(features: np.ndarray, class_indices: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the prototype of each class.

    Args:
        features: float32, shape (n, feature_dim), of training photos; some of every class.
        class_indices: of these photos, shape (n,).
        num_classes: how many classes there are.

    Returns:
        float32, shape (num_classes, feature_dim), of length 1.
    """
    units = _directions(features.astype(np.float64))
    means = np.stack([units[class_indices == index].mean(axis=0) for index in range(num_classes)])
    return _directions(means).astype(np.float32)


def novelty_of(features: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """Return what the graph computes as `novelty`, up to the order of sums: float32, shape (n,)."""
    return 1 - (_directions(features) @ prototypes.T).max(axis=1)


def novel_from(novelty: np.ndarray) -> float:
    """Return the threshold from the novelties of independent val photos, shape (n,): see `regraft.serving.novelty`."""
    return float(np.sort(novelty)[-rank_of(len(novelty))])


def _directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), vectors.dtype.type(_SMALLEST))


def _novelty() -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceL2", [FEATURES, "axis"], ["length"], keepdims=1),
        helper.make_node("Max", ["length", "smallest"], ["safe_length"]),
        helper.make_node("Div", [FEATURES, "safe_length"], ["direction"]),
        helper.make_node("MatMul", ["direction", "prototypes"], ["cosines"]),
        helper.make_node("ReduceMax", ["cosines", "axis"], ["cosine"], keepdims=0),
        helper.make_node("Sub", ["one", "cosine"], ["novelty"]),
    ]
