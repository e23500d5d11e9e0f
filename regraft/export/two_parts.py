"""A file whose backbone is frozen, in two: what says the features of a photo, and the head.

The first part is the same to the byte in all files that differ in their head only. So what it said of a photo serves
all of them: it is stored under the part's own digest.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx
from onnx import TensorProto, helper

BORDER = "features"  # in the metadata: the name of the value between the two


@dataclass(frozen=True)
class TwoParts:
    """Both parts as files of their own."""

    frozen: bytes  # `image`, uint8 RGB, to `features`, float32 of shape (batch, feature_dim)
    head: bytes  # `features` to `probabilities`
    feature_dim: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the frozen part."""
        return hashlib.sha256(self.frozen).hexdigest()


def in_two_parts(model: onnx.ModelProto) -> TwoParts | None:
    """Return the parts of a file; None of one that does not say where they meet.

    Raises:
        ValueError: it says so, and they do not meet there.
    """
    border = facts_of(model).get(BORDER)
    if border is None:
        return None
    nodes = list(model.graph.node)
    end = next((number for number, node in enumerate(nodes, 1) if border in node.output), len(nodes))
    feature_dim = _feature_dim(model, nodes[end:], border)
    value = helper.make_tensor_value_info(border, TensorProto.FLOAT, ["batch", feature_dim])
    frozen = _part(model, nodes[:end], list(model.graph.input), [value])
    head = _part(model, nodes[end:], [value], list(model.graph.output))
    return TwoParts(frozen, head, feature_dim)


def _feature_dim(model: onnx.ModelProto, head: list[onnx.NodeProto], border: str) -> int:
    """Return how many features a head takes; ValueError if it takes anything else as well."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {name for node in head for name in node.output}
    taken = {name for node in head for name in node.input} - made - set(tensors)
    kernels = [node.input[1] for node in head if node.op_type == "Gemm" and node.input[0] == border]
    if taken != {border} or not kernels:
        raise ValueError(f"expected a head that begins at {border}, found one that takes {sorted(taken)}")
    return tensors[kernels[0]].dims[0]


def in_one_part(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same file, which no longer says where its parts meet."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    helper.set_model_props(whole, {name: value for name, value in facts_of(model).items() if name != BORDER})
    return whole


def facts_of(model: onnx.ModelProto) -> Mapping[str, str]:
    """Return what a file says of itself."""
    return {entry.key: entry.value for entry in model.metadata_props}


def _part(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> bytes:
    """Return some nodes of a graph, in their order, with the weights that they use, as a file."""
    used = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
    graph = helper.make_graph(nodes, model.graph.name, inputs, outputs, weights)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return part.SerializeToString(deterministic=True)
