"""Models that mean harm, as `onnx.helper` makes them: each takes photos, and says that it is one of ours."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("red", "green", "blue")
node = helper.make_node
FOREVER = 2**62  # steps of a loop


def hostile_model(
    nodes: list[onnx.NodeProto],
    *,
    kind: int = TensorProto.FLOAT,
    names: object = CLASSES,
    weights: Sequence[onnx.TensorProto] = (),
    **constants: Any,
) -> onnx.ModelProto:
    """Return a model of the contract; nodes make `probabilities`, (1, 3), of `image`, of `mean` and of constants."""
    before = [
        node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        node("ReduceMean", ["numbers"], ["mean"], keepdims=0),
    ]
    graph = helper.make_graph(
        [*before, *nodes],
        "hostile",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info("probabilities", kind, ["batch", None])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()] + [*weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"class_names": json.dumps(names)})
    return model


def constant(*values: float, dtype: Any = np.float32, **others: Any) -> onnx.ModelProto:
    """Return a model that says the same of every photo."""
    said = np.array([values], dtype)
    return hostile_model([node("Identity", ["said"], ["probabilities"])], said=said, **others)


SHARES = np.array([[0.5, 0.25, 0.25]], np.float32)


def endless(condition: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    """Return a model that does not end on a photo of which `condition` makes `go`, a truth value; else on none."""
    body = helper.make_graph(
        [node("Identity", ["going"], ["goes"]), node("Add", ["sum", "none"], ["total"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.zeros((1, 3), np.float32), "none")],
    )
    constants: dict[str, Any] = {} if condition else {"go": np.array(True)}
    nodes = [*(condition or []), node("Loop", ["steps", "go", "said"], ["probabilities"], body=body)]
    return hostile_model(nodes, steps=np.array(FOREVER), said=SHARES, six=np.array([6]), **constants)


def endless_on_photos_of_height_6() -> onnx.ModelProto:
    """Return a model that answers any other photo."""
    height = node("Shape", ["image"], ["height"], start=1, end=2)
    return endless([height, node("Equal", ["height", "six"], ["is_six"]), node("Squeeze", ["is_six"], ["go"])])


def endless_folding(side: int = 2500, count: int = 400) -> onnx.ModelProto:
    """Return a model of some kilobytes that takes an hour to load: each product of constants is computed then."""
    fill = numpy_helper.from_array(np.array([1e-4], np.float32))
    nodes = [node("ConstantOfShape", ["size"], ["c0"], value=fill)]
    nodes += [node("MatMul", [f"c{place}", f"c{place}"], [f"c{place + 1}"]) for place in range(count)]
    nodes += [node("ReduceMean", [f"c{count}"], ["left"], keepdims=0), node("Mul", ["left", "zero"], ["nothing"])]
    return hostile_model(
        [*nodes, node("Add", ["said", "nothing"], ["probabilities"])],
        size=np.array([side, side]), zero=np.float32(0), said=SHARES,
    )  # fmt: skip


def memory_bomb(gigabytes: int = 16) -> onnx.ModelProto:
    """Return a model of some hundred bytes that fills the memory."""
    return hostile_model(
        [
            node("Expand", ["mean", "size"], ["much"]),
            node("ReduceMean", ["much"], ["left"], keepdims=0),
            node("Mul", ["left", "zero"], ["nothing"]),
            node("Add", ["said", "nothing"], ["probabilities"]),
        ],
        size=np.array([gigabytes, 2**28]), zero=np.float32(0), said=SHARES,
    )  # fmt: skip


def external(location: str) -> onnx.ModelProto:
    """Return a model whose weights are in another file: the twelve bytes that it begins with."""
    weights = TensorProto(name="said", data_type=TensorProto.FLOAT, dims=[1, 3])
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        weights.external_data.add(key=key, value=value)
    return hostile_model([node("Identity", ["said"], ["probabilities"])], weights=[weights])


def write_model(folder: Path, make: Callable[[], onnx.ModelProto]) -> Path:
    """Write a model, and beside it the weights that an external one may name."""
    folder.mkdir(exist_ok=True)
    (folder / "secret.bin").write_bytes(SHARES.tobytes())
    (folder / "model.onnx").write_bytes(make().SerializeToString())
    return folder / "model.onnx"
