"""The step of fine-tuning: gradients of a cross-entropy, and AdamW in one pass over memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.training.devices import compute_dtype
from regraft.training.fused_batchnorm import folded
from regraft.training.inputs import Images
from regraft.training.layers import logits_of

if TYPE_CHECKING:
    import keras

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # Kingma & Ba, "Adam", 2015; the epsilon is that of Keras
VAL_BATCH = 64  # images in memory at a time


class Trainer:
    """A network, the variables of it that are trained, and the state of AdamW."""

    def __init__(
        self,
        network: "keras.Model",
        rates: dict[str, float],
        *,
        weight_decay: float,
        dtype: str,
        prior: np.ndarray | None = None,
    ) -> None:
        """Prepare to train a network in place.

        Args:
            network: from `choose_layers`: inputs to probabilities, shape (n, num_classes), by a softmax at its end;
                what is trainable in it is trained.
            rates: by path of a variable, its learning rate as a multiple of the step's.
            weight_decay: decoupled; a bias, which has one dimension, is not decayed.
            dtype: of the inputs, any numeric one; they become float32 in the graph.
            prior: what probabilities are multiplied by while training, from `class_weights.prior_of`.

        The loss is computed from logits: where a probability is too small for float32 there is still a gradient.
        """
        import tensorflow as tf

        self._logits = folded(logits_of(network), compute_dtype=compute_dtype())
        self._log_prior = 0.0 if prior is None else np.log(prior)
        trained, weights = network.trainable_variables, {id(weight) for weight in network.weights}
        self._variables, self._paths = [variable.value for variable in trained], [each.path for each in trained]
        self._plan = [(rates[variable.path], weight_decay if len(variable.shape) > 1 else 0.0) for variable in trained]
        self._moments = [[tf.Variable(tf.zeros_like(value)) for _ in range(2)] for value in self._variables]
        seeds = [variable.value for variable in network.variables if id(variable) not in weights]  # of dropout
        self._state = [*self._variables, *(moment for pair in self._moments for moment in pair), *seeds]
        self._steps, self._strategy = 0, tf.distribute.get_strategy()
        self._step, self._predict = self._compiled(
            tf.TensorSpec((None, *network.input_shape[1:]), dtype),
            tf.TensorSpec((None, *network.output_shape[1:]), tf.float32),
        )

    def _compiled(self, inputs_spec: Any, targets_spec: Any) -> tuple[Any, Any]:
        """Return the graphs of a step and of a prediction.

        Their first dimension is free: the last batch is smaller, and another graph would take seconds to build. Values
        that are spread over devices have no signature.
        """
        import tensorflow as tf

        is_one = self._strategy.num_replicas_in_sync == 1
        signature = [inputs_spec, targets_spec, *[tf.TensorSpec((), tf.float32)] * 3] if is_one else None

        @tf.function(input_signature=signature, reduce_retracing=not is_one)
        def step(inputs: Any, targets: Any, count: Any, learning_rate: Any, number: Any) -> Any:
            both = self._strategy.run(self._gradients, (inputs, targets, count))
            loss, gradients = (self._strategy.reduce("sum", part, axis=None) for part in both)
            for variable, pair, gradient, (rate, decay) in zip(
                self._variables, self._moments, gradients, self._plan, strict=True
            ):
                arguments = (pair, gradient, rate * learning_rate, decay, number)
                self._strategy.extended.update(variable, _adamw, arguments)
            return loss

        @tf.function(input_signature=[inputs_spec])
        def predict(inputs: Any) -> Any:
            return tf.nn.softmax(self._logits(tf.cast(inputs, tf.float32), training=False))

        return step, predict

    def _gradients(self, inputs: Any, targets: Any, count: Any) -> Any:
        """Return the loss of a device's part of a batch, over the whole batch's `count`, and its gradients."""
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            logits = self._logits(tf.cast(inputs, tf.float32), training=True) + self._log_prior
            loss = -tf.reduce_sum(targets * tf.nn.log_softmax(logits)) / count
        return loss, tape.gradient(loss, self._variables)

    def step(self, inputs: np.ndarray, targets: np.ndarray, learning_rate: float) -> float:
        """Take one step of AdamW on a batch and return its mean cross-entropy before it.

        Loshchilov & Hutter, "Decoupled weight decay regularization", 2019.

        Args:
            inputs: what the network takes, as `dtype`.
            targets: float32, shape (n, num_classes); rows sum to the weight of the image.
            learning_rate: of a variable whose rate is 1.
        """
        self._steps += 1
        numbers = (len(inputs), learning_rate, self._steps)
        return float(self._step(*map(self._shared, (inputs, targets)), *map(np.float32, numbers)))

    def _shared(self, batch: np.ndarray) -> Any:
        """Split a batch between the devices."""
        devices = self._strategy.num_replicas_in_sync
        if devices == 1:
            return batch
        parts = np.array_split(batch, devices)
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group]
        )

    def predict(self, images: Images) -> np.ndarray:
        """Return probabilities, float32, shape (images, num_classes)."""
        batches = np.split(np.arange(len(images)), range(VAL_BATCH, len(images), VAL_BATCH))
        return np.concatenate([self._predict(inputs).numpy() for inputs in images.inputs(batches, 0)])

    def weights(self) -> list[np.ndarray]:
        """Return what is trained, as it is now."""
        return [variable.numpy() for variable in self._variables]

    def not_finite(self) -> list[str]:
        """Return the paths of the Keras variables that were trained and hold a NaN or an infinity."""
        weights = zip(self._paths, self.weights(), strict=True)
        return [path for path, weight in weights if not np.isfinite(weight).all()]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Give what is trained other values, in the order of `weights`; the state of AdamW stays."""
        for variable, value in zip(self._variables, weights, strict=True):
            variable.assign(value)

    def state(self) -> list[np.ndarray]:
        """Return all that the next step depends on, beside its batch."""
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
