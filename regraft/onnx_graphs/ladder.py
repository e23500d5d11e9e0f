"""Int8 graphs of a network that was trained: with which ranges, and which layers stay in float32.

`regraft.onnx_graphs.int8` makes the graph that fills the store, without anyone's photos. Here the whole network is
known, and photos say how large its activations get (`regraft.onnx_graphs.ranges`).

Weights have 7 of their 8 bits and one scale per filter, for the reasons that are given there.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from regraft.onnx_graphs.int8 import rounded_with_means_kept
from regraft.onnx_graphs.quantisable import Layer, Network, Unsuitable
from regraft.onnx_graphs.ranges import Range


def in_int8(
    network: Network, ranges: Mapping[str, Range], *, left: Collection[Layer] = (), alone: Collection[Layer] = ()
) -> onnx.ModelProto:
    """Return the graph of a network with weights and activations as bytes: static, in QDQ form.

    Weights are symmetric with one scale per filter, activations uint8 with one scale per tensor.

    Args:
        network: its own graph stays as it is.
        ranges: of every float32 tensor in it.
        left: layers that stay in float32.
        alone: only these are quantised; none of them: all.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    chosen = set().union(*alone) if alone else _from_first_convolution(network.graph)
    chosen -= set[str]().union(*left)
    if not chosen:
        raise Unsuitable("nothing is left to quantise")
    given = _guarded(_with_rounded_weights(network.graph, chosen), network.layers, chosen)
    every = [node.name for node in given.graph.node]
    quantiser = QDQQuantizer(
        given,
        per_channel=True,
        reduce_range=True,  # to 7 bits
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {name: (np.array(low, np.float32), np.array(high, np.float32)) for name, (low, high) in ranges.items()},
        ),
        nodes_to_quantize=[name for name in every if name in chosen],
        nodes_to_exclude=[name for name in every if name not in chosen],
        op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry}),
        extra_options={},
    )
    quantiser.quantize_model()
    return quantiser.model.model


def _from_first_convolution(graph: onnx.ModelProto) -> set[str]:
    """Return the names of the convolutions and of what comes after one: what scales the pixels stays in float32."""
    behind, found = set[str](), set[str]()
    for node in graph.graph.node:
        if node.op_type == "Conv" or behind.intersection(node.input):
            behind |= set(node.output)
            found.add(node.name)
    return found


def _with_rounded_weights(graph: onnx.ModelProto, chosen: Collection[str]) -> onnx.ModelProto:
    """Round the filters of some nodes, so that the quantiser finds them on its own levels and leaves them there."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    filters = {node.input[1] for node in copy.graph.node if node.op_type == "Conv" and node.name in chosen}
    for tensor in copy.graph.initializer:
        if tensor.name in filters:
            rounded = rounded_with_means_kept(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    return copy


def _guarded(graph: onnx.ModelProto, layers: Sequence[Layer], chosen: Collection[str]) -> onnx.ModelProto:
    """Put a node that changes nothing behind each layer that stays in float32, or ONNX Runtime would quantise it.

    Where the input of a convolution or a Gemm comes from bytes and its output, through no more than a ReLU or a Clip,
    becomes bytes, ONNX Runtime rounds its weights too when it loads the file: with one scale for all filters, which
    made the features of EfficientNet-Lite0 three times as wrong as all layers in int8 did. A maximum of one value is
    in no pattern of ONNX Runtime.

    Args:
        graph: is changed.
        layers: of it.
        chosen: the names of nodes that are quantised.

    Source: `WeightBiasQuantization` in onnxruntime/core/optimizer/qdq_transformer.
    """
    numbers = {node.name: number for number, node in enumerate(graph.graph.node)}
    ends = sorted((max(numbers[name] for name in layer) for layer in layers if not layer & set(chosen)), reverse=True)
    for end in ends:
        node = graph.graph.node[end]
        result, guarded = node.output[0], f"{node.output[0]}/guarded"
        node.output[0] = guarded
        graph.graph.node.insert(end + 1, helper.make_node("Max", [guarded], [result], name=f"{node.name}/guard"))
    return graph
