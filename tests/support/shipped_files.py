"""Small files as Regraft ships them: a frozen backbone with a head of random weights."""

import json
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from regraft.backbones.trunk import Trunk
from regraft.onnx_graphs.convert import chained, part_of, renamed
from regraft.photos.preparation import Preparation

FEATURES = 1280  # of the trunk


def shipped_graph(
    trunk: Trunk, preparation: Preparation, class_names: list[str], *, seed: int = 0, hidden: int = 0
) -> tuple[onnx.ModelProto, np.ndarray]:
    """Return a graph with the output `probabilities`, and the bias of its last layer.

    Args:
        trunk: the frozen backbone.
        preparation: of photos.
        class_names: of as many classes as the head gets.
        seed: of its weights.
        hidden: units of a hidden layer; 0 for a linear head.
    """
    head, bias = _head(len(class_names), seed, hidden)
    whole = chained([preparation.build_graph(), part_of(trunk.read_graph(), ["features"]), head])
    whole = renamed(whole, {whole.graph.input[0].name: "image", whole.graph.output[0].name: "probabilities"})
    del whole.opset_import[1:]
    preprocessing = {"crop_fraction": preparation.crop_fraction, "image_size": preparation.image_size}
    facts = {"class_names": json.dumps(class_names), "preprocessing": json.dumps(preprocessing)}
    helper.set_model_props(whole, facts)
    return whole, bias


def tiny_graph(class_names: list[str], facts: dict[str, str], *, size: int = 32) -> onnx.ModelProto:
    """Return a graph of a few kilobytes with the outputs `probabilities`, `features` and `novelty`.

    Args:
        class_names: of its classes.
        facts: what it says of itself besides, such as `abstain_below`.
        size: side of what its one convolution is given.
    """
    random = np.random.default_rng(0)
    arrays = {
        "scale": np.array(1 / 255, np.float32),
        "filters": random.normal(size=(12, 3, 5, 5)).astype(np.float32),
        "kernel": random.normal(size=(12, len(class_names))).astype(np.float32),
        "bias": random.normal(size=len(class_names)).astype(np.float32),
        "prototype": np.full((12, 1), 12**-0.5, np.float32),
        "last": np.array([1]),
        "full": np.array(1, np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["given"], ["numbers"], to=TensorProto.FLOAT),
        node("Mul", ["numbers", "scale"], ["scaled"]),
        node("Transpose", ["scaled"], ["channels"], perm=[0, 3, 1, 2]),
        node("Conv", ["channels", "filters"], ["found"], strides=[4, 4]),
        node("Relu", ["found"], ["activations"]),
        node("GlobalAveragePool", ["activations"], ["pooled"]),
        node("Flatten", ["pooled"], ["features"]),
        node("Gemm", ["features", "kernel", "bias"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"]),
        node("LpNormalization", ["features"], ["direction"]),
        node("MatMul", ["direction", "prototype"], ["cosines"]),
        node("Squeeze", ["cosines", "last"], ["cosine"]),
        node("Sub", ["full", "cosine"], ["novelty"]),
    ]
    outputs = {"probabilities": [len(class_names)], "features": [12], "novelty": []}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("given", TensorProto.UINT8, ["batch", size, size, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *dims]) for name, dims in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    first = Preparation(size, 0.875).build_graph()
    first.ir_version = 8
    whole = compose.merge_models(first, model, io_map=[("prepared", "given")])
    preprocessing = json.dumps({"crop_fraction": 0.875, "image_size": size})
    helper.set_model_props(whole, {"class_names": json.dumps(class_names), "preprocessing": preprocessing} | facts)
    return whole


def _head(classes: int, seed: int, hidden: int) -> tuple[onnx.ModelProto, np.ndarray]:
    random = np.random.default_rng(seed)
    sizes = [FEATURES, hidden, classes] if hidden else [FEATURES, classes]
    nodes, arrays, value = [], {}, "given"
    for layer, (taken, made) in enumerate(pairwise(sizes)):
        arrays[f"kernel{layer}"] = random.normal(size=(taken, made)).astype(np.float32) / 30
        arrays[f"bias{layer}"] = random.normal(size=made).astype(np.float32) / 30
        nodes.append(helper.make_node("Gemm", [value, f"kernel{layer}", f"bias{layer}"], [f"made{layer}"]))
        value = f"made{layer}"
    nodes.append(helper.make_node("Softmax", [value], ["probabilities"]))
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model, arrays[f"bias{len(sizes) - 2}"]
