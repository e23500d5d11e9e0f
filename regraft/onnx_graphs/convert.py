"""ONNX graphs: converting Keras models, composing parts into one file, and giving equal graphs equal bytes."""

from collections.abc import Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from regraft.core.errors import RegraftError
from regraft.photos.preparation import IR_VERSION, OPSET

if TYPE_CHECKING:
    import keras


def convert_keras(model: "keras.Model", *, input_name: str, output_names: list[str]) -> onnx.ModelProto:
    """Return a float32 Keras model as a canonical ONNX graph.

    Args:
        model: functional, one input, as many outputs as there are `output_names`.
        input_name: what the graph calls the input; its shape keeps a free first dimension named `batch`.
        output_names: what the graph calls the outputs, in the model's order.

    Raises:
        RegraftError: the model has an operation that cannot be converted.
    """
    import tensorflow as tf
    from tf2onnx import convert as tf2onnx_convert

    _let_tf2onnx_use_numpy_2()
    _let_tf2onnx_forget_copies()
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name=input_name)]

    @tf.function(input_signature=signature)
    def call(tensor: Any) -> dict[str, Any]:
        outputs = model(tensor, training=False)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        return dict(zip(output_names, outputs, strict=True))

    # As a "large model", because otherwise tf2onnx copies the whole graph, weights and all, before each of dozens of
    # optimizations: a third of the time and many times the memory of the weights.
    converted, weights = tf2onnx_convert.from_function(
        call,
        input_signature=signature,
        opset=OPSET,
        large_model=True,
        custom_op_handlers={"Erfc": (_convert_erfc, [])},
    )
    _check_converted(converted, model.name, input_name)
    for tensor in converted.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.raw_data = weights.name_to_tensor_data[tensor.external_data[0].value]
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    order = {output.name: output for output in converted.graph.output}
    del converted.graph.output[:]
    converted.graph.output.extend(order[name] for name in output_names)
    for value in [*converted.graph.input, *converted.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return canonical(converted)


def _check_converted(converted: onnx.ModelProto, model_name: str, input_name: str) -> None:
    """Raise RegraftError if tf2onnx left something in the graph that ONNX cannot compute by itself."""
    unknown = sorted({node.op_type for node in converted.graph.node if not onnx.defs.has(node.op_type)})
    if unknown:
        raise RegraftError(
            f"{model_name} cannot be converted to ONNX: it has {', '.join(unknown)} (StatefulPartitionedCall is a "
            f"convolution in groups). Choose another backbone, or replace that layer."
        )
    captured = [value.name for value in converted.graph.input if value.name != input_name]
    if captured:
        raise RegraftError(
            f"{model_name} cannot be converted to ONNX: it computes with values outside its weights ({captured[0]}). "
            f"Choose another backbone, or replace that layer."
        )


def with_uint8_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its one float32 input taken as uint8 and cast inside."""
    (value,) = model.graph.input
    name = value.name
    inner = renamed(model, {name: f"{name}_float"})
    inner.graph.input[0].name = name
    inner.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    inner.graph.node.insert(0, helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT))
    return inner


def part_of(model: onnx.ModelProto, outputs: list[str]) -> onnx.ModelProto:
    """Return the part of a graph that computes `outputs` from the graph's own inputs."""
    return onnx.utils.Extractor(model).extract_model([value.name for value in model.graph.input], outputs)


def chained(parts: Iterable[onnx.ModelProto]) -> onnx.ModelProto:
    """Return one graph in which each part's only output is the next part's only input."""
    first, *rest = (compose.add_prefix(part, f"part{index}/") for index, part in enumerate(parts))
    whole = first
    for part in rest:
        whole = compose.merge_models(whole, part, io_map=[(whole.graph.output[0].name, part.graph.input[0].name)])
    return whole


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """Return the graph with some of its inputs and outputs renamed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in [*copy.graph.input, *copy.graph.output, *copy.graph.value_info]:
        value.name = names.get(value.name, value.name)
    for node in copy.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return copy


def canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with names and order that follow from its structure alone.

    tf2onnx numbers nodes and orders initializers differently from run to run, so equal weights gave different files.
    Inputs and outputs keep their names. Nodes are taken depth first from the outputs, which is a topological order.
    """
    graph, order = model.graph, _Order(model.graph)
    result = onnx.ModelProto()
    result.ir_version = IR_VERSION
    result.producer_name = "regraft"
    result.graph.name = "regraft"
    result.opset_import.extend(opset for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
    result.metadata_props.extend(sorted(model.metadata_props, key=lambda entry: entry.key))
    result.graph.input.extend(graph.input)
    result.graph.output.extend(graph.output)
    for index, node in enumerate(order.nodes):
        copy = result.graph.node.add()
        copy.CopyFrom(node)
        copy.name = f"{node.op_type}{index}"
        copy.ClearField("doc_string")
        copy.input[:] = [order.names[name] if name else "" for name in node.input]
        copy.output[:] = [order.names[name] if name else "" for name in node.output]
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        del copy.attribute[:]
        copy.attribute.extend(attributes)
    for tensor in order.initializers:
        array = numpy_helper.to_array(tensor)
        result.graph.initializer.add().CopyFrom(numpy_helper.from_array(array, order.names[tensor.name]))
    return result


class _Order:
    """The nodes and initializers of a graph that its outputs need, depth first, and what each value is called then."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.names: dict[str, str] = {}
        self._producers = {output: node for node in graph.node for output in node.output}
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._public = {value.name for value in [*graph.input, *graph.output]}
        for value in graph.output:
            self._visit(value.name)

    def _visit(self, name: str) -> None:
        stack = [(name, False)]
        while stack:
            name, ready = stack.pop()
            if name in self.names or not name:
                continue
            if name in self._tensors:
                self.initializers.append(self._tensors[name])
                self._rename(name, "weight")
            elif name not in self._producers:
                self._rename(name, "value")
            elif ready:
                node = self._producers[name]
                self.nodes.append(node)
                for output in node.output:
                    self._rename(output, "value")
            else:
                stack.append((name, True))
                stack.extend((needed, False) for needed in reversed(self._producers[name].input))

    def _rename(self, name: str, stem: str) -> None:
        new = name if name in self._public or not name else f"{stem}{len(self.names)}"
        while new != name and new in self._public:  # a public name may look like a generated one
            new += "_"
        self.names.setdefault(name, new)


def _convert_erfc(ctx: Any, node: Any, name: str, args: Any) -> None:
    """erfc(x) = 1 - erf(x), for tf2onnx, which knows only erf; TensorFlow computes GELU with erfc."""
    shape, dtype = ctx.get_shape(node.output[0]), ctx.get_dtype(node.output[0])
    erf = ctx.make_node("Erf", node.input[:1], shapes=[shape], dtypes=[dtype])
    one = ctx.make_const(f"{name}_one", np.float32(1))
    ctx.remove_node(name)
    ctx.make_node("Sub", [one.output[0], erf.output[0]], outputs=node.output, name=name, shapes=[shape], dtypes=[dtype])


def _let_tf2onnx_use_numpy_2() -> None:
    """tf2onnx 1.17 still uses `np.cast`, `np.bool` and the like; Keras patches it the same way before its export."""
    from keras.src.export.onnx import patch_tf2onnx
    from keras.src.utils.module_utils import tf2onnx  # noqa: F401

    patch_tf2onnx()


def _let_tf2onnx_forget_copies() -> None:
    """After each of two dozen optimizations tf2onnx writes all weights into its nodes anew, and protobuf frees what was
    written before only with the node. So a node is renewed before it is written."""
    from tf2onnx.graph import Node

    if hasattr(Node.update_proto, "__wrapped__"):
        return
    update = Node.update_proto

    @wraps(update)
    def update_renewed(node: Any, *args: Any, **kwargs: Any) -> None:
        del node._op.attribute[:]
        renewed = onnx.NodeProto()
        renewed.CopyFrom(node._op)
        node._op = renewed
        update(node, *args, **kwargs)

    Node.update_proto = update_renewed
