"""A small classifier with the preprocessing of those that ship."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from regraft.onnx_graphs.convert import chained, renamed
from regraft.photos.preparation import Preparation
from regraft.serving.thresholds import Promise


def random_classifier(side: int, class_names: list[str], promise: Promise) -> onnx.ModelProto:
    """Return a file to ship, of three classes, whose one random layer looks at every pixel of the square."""
    weights = np.random.default_rng(0).normal(0, 1, (side * side * 3, 3)).astype(np.float32)
    head = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["numbers"], ["flat"]),
            helper.make_node("Div", ["flat", "full"], ["shares"]),
            helper.make_node("MatMul", ["shares", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ],
        "head",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", side, side, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array(2550, np.float32), "full")],
    )
    opsets = [helper.make_opsetid("", 18)]
    parts = [Preparation(side, 1.0).build_graph(), helper.make_model(head, opset_imports=opsets, ir_version=10)]
    model = chained(parts)
    model = renamed(model, {model.graph.input[0].name: "image", model.graph.output[0].name: "probabilities"})
    helper.set_model_props(model, {"class_names": json.dumps(class_names), **promise.as_metadata()})
    return model
