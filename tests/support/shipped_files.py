"""Small files as Regraft ships them: a frozen backbone with a head of random weights."""

import json
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

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
