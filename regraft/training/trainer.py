"""The step of fine-tuning: gradients of a cross-entropy, and AdamW in one pass over memory.

Networks are trained in a form that is cheaper: the same variables and the same function in fewer passes over memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from regraft.training.keras_network import logits_of

if TYPE_CHECKING:
    import keras

VAL_BATCH = 64  # images in memory at a time
WEIGHT_DECAY = 0.01  # decoupled, on kernels
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # Kingma & Ba, "Adam", 2015; the epsilon is that of Keras
_SMALL_MAP = 64  # pixels; on larger maps the product of all pairs of pixels costs more than it saves


class Inputs(Protocol):
    """Inputs of a network, read ahead of the steps."""

    def __call__(self, batches: Iterable[np.ndarray], epoch: int) -> Iterator[np.ndarray]:
        """Yield the inputs of each batch: positions of images, shape (n,), to any numeric dtype, shape (n, ...)."""
        ...


@dataclass(frozen=True, slots=True)
class Images:
    """The images of one split."""

    inputs: Inputs
    class_indices: np.ndarray  # int, shape (images,)

    def __len__(self) -> int:
        return len(self.class_indices)


class Trainer:
    """A network, the variables of it that are trained, and the state of AdamW."""

    def __init__(self, network: "keras.Model", *, dtype: str, prior: np.ndarray | None = None) -> None:
        """Prepare to train a network in place.

        Args:
            network: from `choose_layers`: inputs to probabilities, shape (n, num_classes), by a softmax at its end; its
                trainable variables are trained.
            dtype: of the inputs, any numeric one; they become float32 in the graph.
            prior: factors of probabilities while training, from `class_prior`.

        The loss is computed from logits: where a probability is too small for float32 there is still a gradient.
        """
        import tensorflow as tf

        self._logits = folded(logits_of(network))
        self._log_prior = 0.0 if prior is None else np.log(prior)
        trained, weights = network.trainable_variables, {id(weight) for weight in network.weights}
        self._variables, self._paths = [variable.value for variable in trained], [each.path for each in trained]
        # A bias, which has one dimension, is not decayed.
        self._decays = [WEIGHT_DECAY if len(variable.shape) > 1 else 0.0 for variable in trained]
        self._moments = [[tf.Variable(tf.zeros_like(value)) for _ in range(2)] for value in self._variables]
        seeds = [variable.value for variable in network.variables if id(variable) not in weights]  # of dropout
        self._state = [*self._variables, *(moment for pair in self._moments for moment in pair), *seeds]
        self._steps = 0
        # Their first dimension is free: the last batch is smaller, and another graph would take seconds to build.
        inputs = tf.TensorSpec((None, *network.input_shape[1:]), dtype)
        targets = tf.TensorSpec((None, *network.output_shape[1:]), tf.float32)
        numbers = [tf.TensorSpec((), tf.float32)] * 3
        self._step = tf.function(self._take_step, input_signature=[inputs, targets, *numbers])
        self._predict = tf.function(self._probabilities, input_signature=[inputs])

    def _take_step(self, inputs: Any, targets: Any, count: Any, learning_rate: Any, number: Any) -> Any:
        """Return the mean loss over a batch of `count` images, and change the variables (a graph)."""
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            logits = self._logits(tf.cast(inputs, tf.float32), training=True) + self._log_prior
            loss = -tf.reduce_sum(targets * tf.nn.log_softmax(logits)) / count
        gradients = tape.gradient(loss, self._variables)
        for variable, pair, gradient, decay in zip(
            self._variables, self._moments, gradients, self._decays, strict=True
        ):
            _adamw(variable, pair, gradient, learning_rate, decay, number)
        return loss

    def _probabilities(self, inputs: Any) -> Any:
        import tensorflow as tf

        return tf.nn.softmax(self._logits(tf.cast(inputs, tf.float32), training=False))

    def step(self, inputs: np.ndarray, targets: np.ndarray, learning_rate: float) -> float:
        """Take one step of AdamW on a batch and return its mean cross-entropy before it.

        Loshchilov & Hutter, "Decoupled weight decay regularization", 2019.

        Args:
            inputs: of the network, as `dtype`.
            targets: float32, shape (n, num_classes); rows sum to the weight of the image.
            learning_rate: of this step.
        """
        self._steps += 1
        return float(self._step(inputs, targets, *map(np.float32, (len(inputs), learning_rate, self._steps))))

    def predict(self, images: Images) -> np.ndarray:
        """Return probabilities, float32, shape (images, num_classes)."""
        batches = np.split(np.arange(len(images)), range(VAL_BATCH, len(images), VAL_BATCH))
        return np.concatenate([self._predict(inputs).numpy() for inputs in images.inputs(batches, 0)])

    def weights(self) -> list[np.ndarray]:
        """Return the trained variables as they are now."""
        return [variable.numpy() for variable in self._variables]

    def not_finite(self) -> list[str]:
        """Return the paths of trained Keras variables that hold a NaN or an infinity."""
        weights = zip(self._paths, self.weights(), strict=True)
        return [path for path, weight in weights if not np.isfinite(weight).all()]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Set the trained variables, in the order of `weights`; the state of AdamW stays."""
        for variable, value in zip(self._variables, weights, strict=True):
            variable.assign(value)

    def state(self) -> list[np.ndarray]:
        """Return everything that the next step depends on, beside its batch."""
        return [np.array(self._steps), *(variable.numpy() for variable in self._state)]

    def restore(self, state: Sequence[np.ndarray]) -> None:
        """Go back to a state."""
        self._steps = int(state[0])
        for variable, value in zip(self._state, state[1:], strict=True):
            variable.assign(value)


def _adamw(variable: Any, moments: Any, gradient: Any, rate: Any, decay: float, number: Any) -> None:
    """Take the optimizer's step on one variable: one pass over memory, where an optimizer of Keras makes about ten."""
    import tensorflow as tf

    if decay:
        variable.assign(variable * (1 - decay * rate))
    first, second = moments
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=first.handle,
        v=second.handle,
        beta1_power=_BETA_1**number,
        beta2_power=_BETA_2**number,
        lr=rate,
        beta1=_BETA_1,
        beta2=_BETA_2,
        epsilon=_EPSILON,
        grad=gradient,
    )


def folded(network: "keras.Model") -> "keras.Model":
    """Return a network that shares the variables of `network` and computes the same, faster to train on a CPU.

    A frozen BatchNorm after a convolution is a fixed scale s and shift b per channel:
    s * conv(x, W) + b = conv(x, s * W) + b. The product s * W is part of the graph, so gradients reach W, and W is
    saved: BatchNorm stays a layer of `network`, as it was. That saves two passes over every output, forward and
    backward. A 1 x 1 convolution is a matrix product, and so is the gradient of a depthwise kernel on small maps. The
    returned network can be run, but not saved.
    """
    import keras

    pairs = _foldable(network)
    convolutions = set(pairs.values())

    def call(layer: "keras.Layer", *arguments: Any, **named: Any) -> Any:
        if layer in convolutions:
            return arguments[0]
        if layer in pairs:
            return _folded_layer()(pairs[layer], layer)(*arguments)
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

        def __init__(self, convolution: Any, norm: Any) -> None:
            super().__init__(name=f"{convolution.name}_folded")
            self.convolution, self.norm = convolution, norm

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
            return _convolved(layer, inputs, layer.kernel * scale) + shift

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

    For tap k it is the sum of input[i] * gradient[o] over images and over the pairs of an input pixel i and an output
    pixel o that tap k joins. On a small map all pairs are one product of (i, images) and (images, o), and another one
    adds them up by tap. TensorFlow's own takes more than twice as long on a CPU.
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
            of_kernel = tf.transpose(tf.matmul(pairs, joined))
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
