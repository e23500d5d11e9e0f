"""A network that is cheap to train: the same variables and the same function in fewer passes over memory."""

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def folded(network: "keras.Model", *, compute_dtype: str = "float32") -> "keras.Model":
    """Return a network that shares the variables of `network` and computes the same, faster to train on a CPU.

    A BatchNorm that follows a convolution and is frozen is a fixed scale s and shift b per channel:
    s * conv(x, W) + b = conv(x, s * W) + b. The product s * W is part of the graph, so gradients reach W, and W is what
    is kept: BatchNorm stays a layer of `network`, as it was. That saves two passes over every output, forward and
    backward. A 1 x 1 convolution is a matrix product.

    Args:
        network: functional, in float32; the returned network can be run, but not saved.
        compute_dtype: of the convolutions and products; their results become float32 again.
    """
    import keras

    pairs = _foldable(network)
    convolutions = set(pairs.values())

    def call(layer: "keras.Layer", *arguments: Any, **named: Any) -> Any:
        if layer in convolutions:
            return arguments[0]
        if layer in pairs:
            return _folded_layer()(pairs[layer], layer, compute_dtype)(*arguments)
        return layer(*arguments, **named)

    return keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=call)


def _foldable(network: "keras.Model") -> dict["keras.Layer", "keras.Layer"]:
    """Return every frozen BatchNorm that alone uses the output of a convolution, with that convolution."""
    import keras

    nodes = [node for depth in network._nodes_by_depth.values() for node in depth]
    uses = Counter(node.operation for node in nodes)
    users: dict[int, list[Any]] = {}
    for node in nodes:
        for tensor in node.input_tensors:
            users.setdefault(id(tensor), []).append(node)
    outputs = {id(tensor) for tensor in network.outputs}
    pairs = {}
    for node in nodes:
        layer = node.operation
        if type(layer) not in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D) or id(node.outputs[0]) in outputs:
            continue
        following = [user.operation for user in users.get(id(node.outputs[0]), [])]
        if (
            len(following) == 1
            and isinstance(following[0], keras.layers.BatchNormalization)
            and not following[0].trainable
            and following[0].axis in (-1, 3)
            and layer.activation is keras.activations.linear
            and layer.data_format == "channels_last"
            and uses[layer] == uses[following[0]] == 1
        ):
            pairs[following[0]] = layer
    return pairs


@cache
def _folded_layer() -> type:
    """The layer class; TensorFlow is imported only when a network is trained."""
    import keras
    from keras import ops

    class Folded(keras.layers.Layer):
        """A convolution and the frozen BatchNorm after it."""

        def __init__(self, convolution: Any, norm: Any, inner_dtype: str) -> None:
            super().__init__(name=f"{convolution.name}_folded")
            self.convolution, self.norm, self.inner_dtype = convolution, norm, inner_dtype

        def build(self, input_shape: Any) -> None:
            self.built = True  # both layers are

        def compute_output_shape(self, input_shape: Any) -> Any:
            return self.convolution.compute_output_shape(input_shape)

        def call(self, inputs: Any) -> Any:
            layer, norm = self.convolution, self.norm
            scale = ops.rsqrt(norm.moving_variance + norm.epsilon)
            if norm.gamma is not None:
                scale = scale * norm.gamma
            shift = -norm.moving_mean if layer.bias is None else layer.bias - norm.moving_mean
            shift = shift * scale
            if norm.beta is not None:
                shift = shift + norm.beta
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                scale = ops.reshape(scale, layer.kernel.shape[2:])
            kernel = ops.cast(layer.kernel * scale, self.inner_dtype)
            outputs = _convolved(layer, ops.cast(inputs, self.inner_dtype), kernel)
            return ops.cast(outputs, "float32") + shift

    return Folded


def _convolved(layer: Any, inputs: Any, kernel: Any) -> Any:
    """Return the convolution of `layer` with another kernel of the same shape."""
    import keras
    from keras import ops

    options = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return ops.depthwise_conv(inputs, kernel, **options)
    if layer.kernel_size == (1, 1) and layer.strides == (1, 1) and layer.groups == 1:
        return ops.matmul(inputs, kernel[0, 0])
    return ops.conv(inputs, kernel, **options)
