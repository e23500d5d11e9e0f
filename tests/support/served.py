"""Small files as Regraft ships them, with all outputs, and what a test does with models/production that serves them."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from regraft.production.registry import Production
from regraft.serving.golden import write_golden

CLASSES = ("apple", "green pear", "piña")
_METADATA = {"novelty_above": "0.9", "temperature": "1.0", "preprocessing": "{}", "regraft_version": "0.1.0"}


def colour_graph(class_names: tuple[str, ...] = CLASSES, *, gain: float = 2.0) -> onnx.ModelProto:
    """Return a classifier of a photo's mean red, green and blue, 0 to 1; the largest of these features is its novelty.

    Args:
        class_names: any number.
        gain: of the logits; other ones make another file.
    """
    kernel = gain * np.random.default_rng(len(class_names)).normal(size=(3, len(class_names)))
    constants = {
        "axes": np.array([1, 2], np.int64),
        "last": np.array([1], np.int64),
        "full": np.array([255], np.float32),
        "kernel": kernel.astype(np.float32),
    }
    sizes = {"probabilities": ["batch", len(class_names)], "features": ["batch", 3], "novelty": ["batch"]}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["numbers", "axes"], ["mean"], keepdims=0),
            helper.make_node("Div", ["mean", "full"], ["features"]),
            helper.make_node("MatMul", ["features", "kernel"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
            helper.make_node("ReduceMax", ["features", "last"], ["novelty"], keepdims=0),
        ],
        "colour",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sizes.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"class_names": json.dumps(class_names), **_METADATA})
    return model


def write_colour_model(folder: Path, class_names: tuple[str, ...] = CLASSES, *, gain: float = 2.0) -> Path:
    """Write such a file beside models/production, and return its path."""
    path = folder.parent / f"{len(class_names)}-{gain:g}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(colour_graph(class_names, gain=gain), path)
    return path


def promote_and_serve(folder: Path, gain: float, class_names: tuple[str, ...] = CLASSES) -> None:
    """Promote a model, and write its golden photo, as `regraft promote` does."""
    production = Production(folder)
    production.promote(write_colour_model(folder, class_names, gain=gain), "a test", keep=5)
    write_golden(production.model, pictures=1)
