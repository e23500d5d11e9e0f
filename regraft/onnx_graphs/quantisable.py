"""The part of a file that can be quantised: its convolutions and what lies between them, and their layers.

What prepares a photo, the pooling and all that comes after it stay as they are, to the bit.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from regraft.onnx_graphs.convert import canonical

Layer = frozenset[str]  # names of nodes: a convolution or a product with weights, and the activation right after it
_WEIGHTED = {"Conv", "Gemm", "MatMul"}
_ACTIVATIONS = {"Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid"}
_FOLLOWING = {*_ACTIVATIONS, "Add", "Mul"}  # what may follow the last convolution and belongs to it


class Unsuitable(ValueError):
    """There is nothing in a graph to quantise; the message says why."""


@dataclass(frozen=True)
class Network:
    """The part of a file that can be quantised, and where it belongs."""

    graph: onnx.ModelProto  # from prepared pixels, uint8, to what the rest takes; every node has a name
    layers: tuple[Layer, ...]  # in the order of the graph
    _whole: onnx.ModelProto
    _before: tuple[onnx.NodeProto, ...]
    _after: tuple[onnx.NodeProto, ...]

    def completed(self, graph: onnx.ModelProto, *, with_preparation: bool) -> onnx.ModelProto:
        """Return a graph in the place of `graph`, with what comes after it, and with what comes before it or not.

        Returns:
            A canonical graph with the outputs of the whole, float32; its input is that of the whole, or the prepared
            pixels, uint8, shape (batch, side, side, 3).
        """
        inner = _prefixed(graph, "int8/")
        nodes = [*(self._before if with_preparation else ()), *inner.graph.node, *self._after]
        used = {name for node in nodes for name in node.input}
        tensors = [tensor for tensor in self._whole.graph.initializer if tensor.name in used]
        given = self._whole.graph.input if with_preparation else inner.graph.input
        proto = helper.make_graph(nodes, "whole", given, self._whole.graph.output, [*inner.graph.initializer, *tensors])
        result = canonical(helper.make_model(proto, opset_imports=inner.opset_import))
        result.ir_version = self._whole.ir_version  # as old a runtime reads it as reads the file
        return result


def network_of(whole: onnx.ModelProto, image_size: int) -> Network:
    """Return what of a graph can be quantised.

    Args:
        whole: from a photo to all outputs: preparation, network, pooling, head. It stays as it is.
        image_size: side of the prepared square.

    Raises:
        Unsuitable: it has no convolutions, or is quantised already.
    """
    nodes = list(whole.graph.node)
    if any(node.op_type == "QuantizeLinear" for node in nodes):
        raise Unsuitable("its frozen part is int8 already (backbone.engine)")
    if not any(node.op_type == "Conv" for node in nodes):
        raise Unsuitable("it has no convolutions")
    before, inside, prepared = _parts(whole)
    outside = [node for number, node in enumerate(nodes) if number not in before | inside]
    taken = {name for node in outside for name in node.input} | {output.name for output in whole.graph.output}
    ends = [name for number in sorted(inside) for name in nodes[number].output if name in taken]
    used = {name for number in inside for name in nodes[number].input}
    graph = helper.make_graph(
        [nodes[number] for number in sorted(inside)],
        "network",
        [helper.make_tensor_value_info(prepared, TensorProto.UINT8, ["batch", image_size, image_size, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ends],
        [tensor for tensor in whole.graph.initializer if tensor.name in used],
    )
    part = _folded(helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version))
    return Network(part, _layers(part), whole, tuple(nodes[number] for number in sorted(before)), tuple(outside))


def in_blocks(layers: Sequence[Layer], most: int) -> list[list[Layer]]:
    """Return layers in order, in at most so many blocks of neighbours, of nearly equal length."""
    bounds = np.linspace(0, len(layers), min(most, len(layers)) + 1).round().astype(int)
    return [list(layers[start:end]) for start, end in pairwise(bounds)]


def _parts(whole: onnx.ModelProto) -> tuple[set[int], set[int], str]:
    """Return which nodes prepare a photo, which can be quantised, and what the value between the two is called."""
    nodes = list(whole.graph.node)
    makers = {name: number for number, node in enumerate(nodes) for name in node.output}
    needed = _behind([number for number, node in enumerate(nodes) if node.op_type == "Conv"], nodes, makers)
    casts = [number for number in sorted(needed) if _casts_to_bytes(nodes[number])]
    if not casts:
        raise Unsuitable("it does not prepare photos as this version does")
    before, prepared = _behind([casts[-1]], nodes, makers), nodes[casts[-1]].output[0]
    inside = needed - before
    made = {name for number in inside for name in nodes[number].output}
    tensors = {tensor.name for tensor in whole.graph.initializer}
    for number, node in enumerate(nodes):  # in their order, so one pass is enough
        given = [name for name in node.input if name and name not in tensors]
        if node.op_type in _FOLLOWING and number not in before and given and made.issuperset(given):
            inside.add(number)
            made |= set(node.output)
    return before, inside, prepared


def _behind(ends: Sequence[int], nodes: Sequence[onnx.NodeProto], makers: Mapping[str, int]) -> set[int]:
    """Return the numbers of these nodes and of all that they need."""
    found, waiting = set[int](), list(ends)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += [makers[name] for name in nodes[number].input if name in makers]
    return found


def _casts_to_bytes(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(
        attribute.name == "to" and attribute.i == TensorProto.UINT8 for attribute in node.attribute
    )


def _folded(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph with each BatchNorm in the convolution before it, the types of all tensors, and named nodes."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:  # of a graph in memory the tool makes a file without its weights
        given, folded = Path(folder, "given.onnx"), Path(folder, "folded.onnx")
        onnx.save(graph, given)
        quant_pre_process(given, folded, skip_symbolic_shape=True)
        result = onnx.load(folded)
    version = max(opset.version for opset in result.opset_import if opset.domain in ("", "ai.onnx"))
    del result.opset_import[:], result.metadata_props[:]
    result.opset_import.append(helper.make_opsetid("", version))
    for number, node in enumerate(result.graph.node):
        node.name = f"{node.op_type}{number}"
    return result


def _layers(graph: onnx.ModelProto) -> tuple[Layer, ...]:
    tensors = {tensor.name for tensor in graph.graph.initializer}
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    found = []
    for node in graph.graph.node:
        if node.op_type in _WEIGHTED and node.input[1] in tensors:
            after = takers.get(node.output[0], [])
            activation = [each.name for each in after if len(after) == 1 and each.op_type in _ACTIVATIONS]
            found.append(frozenset([node.name, *activation]))
    return tuple(found)


def _prefixed(graph: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """Return a graph whose inner names begin like this; inputs and outputs keep theirs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    ends = {"", *(value.name for value in [*copy.graph.input, *copy.graph.output])}
    for node in copy.graph.node:
        node.input[:] = [name if name in ends else prefix + name for name in node.input]
        node.output[:] = [name if name in ends else prefix + name for name in node.output]
    for tensor in copy.graph.initializer:
        tensor.name = tensor.name if tensor.name in ends else prefix + tensor.name
    return copy
