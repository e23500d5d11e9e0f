"""A file in two: what says the features of a photo, and the head that makes probabilities of them.

Where the backbone is frozen, the first part is the same to the byte in all files that differ in their head only. So
what it said of a photo serves all of them: it is stored under the part's own digest.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx
from onnx import TensorProto, helper

FEATURES = "features"  # the value between the two, and an output of the file
BORDER = "frozen_until"  # in the metadata of a file whose first part is frozen: FEATURES


@dataclass(frozen=True)
class TwoParts:
    """Both parts as files of their own."""

    body: bytes  # `image`, uint8 RGB, to `features`, float32 of shape (batch, feature_dim)
    head: bytes  # `features` to all outputs of the file but this one
    feature_dim: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the first part."""
        return hashlib.sha256(self.body).hexdigest()


def in_two_parts(model: onnx.ModelProto) -> TwoParts:
    """Return the parts of a file.

    Raises:
        ValueError: they do not meet in FEATURES, as in files of other programs.
    """
    nodes = list(model.graph.node)
    outputs = {output.name: output for output in model.graph.output}
    end = next((number for number, node in enumerate(nodes, 1) if FEATURES in node.output), None)
    if end is None or FEATURES not in outputs:
        raise ValueError(f"expected an output {FEATURES}, found {', '.join(outputs)}")
    tensors = {tensor.name for tensor in model.graph.initializer}
    made = {name for node in nodes[end:] for name in node.output}
    taken = {name for node in nodes[end:] for name in node.input} - made - tensors
    if taken != {FEATURES}:
        raise ValueError(f"expected a head that takes {FEATURES} alone, found one that takes {sorted(taken)}")
    feature_dim = outputs[FEATURES].type.tensor_type.shape.dim[1].dim_value
    value = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", feature_dim])
    body = _part(model, nodes[:end], list(model.graph.input), [value])
    rest = [output for name, output in outputs.items() if name != FEATURES]
    return TwoParts(as_bytes(body), as_bytes(_part(model, nodes[end:], [value], rest)), feature_dim)


def with_facts(model: onnx.ModelProto, facts: Mapping[str, str | None]) -> onnx.ModelProto:
    """Return the same graph that says more of itself, or another thing; a fact that is None it no longer says."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    said = {name: value for name, value in {**facts_of(model), **facts}.items() if value is not None}
    helper.set_model_props(copy, dict(sorted(said.items())))
    return copy


def facts_of(model: onnx.ModelProto) -> Mapping[str, str]:
    """Return what a file says of itself."""
    return {entry.key: entry.value for entry in model.metadata_props}


def as_bytes(model: onnx.ModelProto) -> bytes:
    """Return a graph as a file: the same bytes for the same graph."""
    return model.SerializeToString(deterministic=True)


def _part(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """Return some nodes of a graph, in their order, with the weights that they use."""
    used = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
    graph = helper.make_graph(nodes, model.graph.name, inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
