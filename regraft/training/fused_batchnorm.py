"""A network that is cheap to train: the same variables and the same function in fewer passes over memory."""

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

_SMALL_MAP = 64  # pixels; on larger maps the product of all pairs of pixels costs more than it saves


def folded(network: "keras.Model", *, compute_dtype: str = "float32") -> "keras.Model":
    """Return a network that shares the variables of `network` and computes the same, faster to train on a CPU.

    A BatchNorm that follows a convolution and is frozen is a fixed scale s and shift b per channel:
    s * conv(x, W) + b = conv(x, s * W) + b. The product s * W is part of the graph, so gradients reach W, and W is what
    is saved: BatchNorm stays a layer of `network`, as it was. That saves two passes over every output, forward and
    backward. A 1 x 1 convolution is a matrix product, and so is the gradient of a depthwise kernel on
    small maps.

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
        if _has_small_maps(layer, inputs.shape):
            return _depthwise_on_small_maps(layer, inputs, kernel)
        return ops.depthwise_conv(inputs, kernel, **options)
    if layer.kernel_size == (1, 1) and layer.strides == (1, 1) and layer.groups == 1:
        return ops.matmul(inputs, kernel[0, 0])
    return ops.conv(inputs, kernel, **options)


def _has_small_maps(layer: Any, shape: Any) -> bool:
    is_plain = layer.depth_multiplier == 1 and layer.dilation_rate == (1, 1) and layer.strides[0] == layer.strides[1]
    return is_plain and None not in shape[1:3] and shape[1] * shape[2] <= _SMALL_MAP


def _depthwise_on_small_maps(layer: Any, inputs: Any, kernel: Any) -> Any:
    """Return a depthwise convolution whose gradient with respect to the kernel is a matrix product per channel.

    That gradient is, for tap k, the sum over images and over the pairs of an input pixel i and an output pixel o that
    tap k joins, of input[i] * gradient[o]. On a small map all pairs are one product of (i, images) and (images, o);
    which of them count for which tap is another one. TensorFlow's own takes more than twice as long on a CPU.
    """
    import tensorflow as tf

    padding, strides = layer.padding.upper(), [1, *layer.strides, 1]
    height, width, channels = inputs.shape[1:]
    joined = _joined(layer, (height, width))

    @tf.custom_gradient
    def convolve(inputs: Any, kernel: Any) -> Any:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            before = tf.transpose(tf.reshape(inputs, (-1, height * width, channels)), (2, 0, 1))
            after = tf.transpose(tf.reshape(upstream, (-1, upstream.shape[1] * upstream.shape[2], channels)), (2, 0, 1))
            pairs = tf.reshape(tf.matmul(before, after, transpose_a=True), (channels, -1))
            of_kernel = tf.transpose(tf.matmul(pairs, tf.cast(joined, pairs.dtype)))
            of_inputs = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, strides=strides, padding=padding
            )
            return of_inputs, tf.reshape(of_kernel, kernel.shape)

        return tf.nn.depthwise_conv2d(inputs, kernel, strides, padding), gradient

    return convolve(inputs, kernel)


def _joined(layer: Any, size: tuple[int, int]) -> np.ndarray:
    """Return which pairs of an input and an output pixel each tap joins: 0 or 1, shape (pairs, taps), float32."""
    after = layer.compute_output_shape((None, *size, layer.kernel.shape[2]))[1:3]
    rows, columns = (
        _taps(*sides, layer.padding) for sides in zip(size, after, layer.kernel_size, layer.strides, strict=True)
    )
    return np.einsum("kio,lju->ijoukl", rows, columns).reshape(-1, rows.shape[0] * columns.shape[0])


def _taps(before: int, after: int, kernel: int, stride: int, padding: str) -> np.ndarray:
    """Return, along one side, whether tap k joins input pixel i to output pixel o: 0 or 1, shape (k, i, o)."""
    start = max(0, (after - 1) * stride + kernel - before) // 2 if padding == "same" else 0
    tap, pixel, output = np.ogrid[:kernel, :before, :after]
    return (pixel == output * stride + tap - start).astype(np.float32)
