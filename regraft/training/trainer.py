"""The training loop of fine-tuning: steps of AdamW, the best epoch on val, and going on after a kill."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from regraft.config import ClassWeight, FineTune
from regraft.training.checkpoints import Checkpoint
from regraft.training.class_weights import weights_of
from regraft.training.devices import compute_dtype
from regraft.training.fused_batchnorm import folded
from regraft.training.keras_models import Epoch
from regraft.training.metrics import Score, score

if TYPE_CHECKING:
    import keras

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # Kingma & Ba, "Adam", 2015; the epsilon is that of Keras
_VAL_BATCH = 64  # images in memory at a time
_TIMED_STEPS = 3


class Inputs(Protocol):
    """What a network is trained on, read ahead of the steps."""

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


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to."""

    curve: list[Epoch]  # epoch 0 is before training
    best: Epoch
    before: np.ndarray  # class indices that were predicted on val before training, shape (images,)
    after: np.ndarray  # the same at the best epoch


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
            network: inputs to probabilities, shape (n, num_classes); what is trainable in it is trained.
            rates: by path of a variable, its learning rate as a multiple of the step's.
            weight_decay: decoupled; a bias, which has one dimension, is not decayed.
            dtype: of the inputs, any numeric one; they become float32 in the graph.
            prior: what probabilities are multiplied by while training, from `imbalance.prior_of`.
        """
        import tensorflow as tf

        quick = folded(network, compute_dtype=compute_dtype())
        trained, weights = network.trainable_variables, {id(weight) for weight in network.weights}
        variables = [variable.value for variable in trained]
        plan = [(rates[variable.path], weight_decay if len(variable.shape) > 1 else 0.0) for variable in trained]
        moments = [[tf.Variable(tf.zeros_like(value)) for _ in range(2)] for value in variables]
        seeds = [variable.value for variable in network.variables if id(variable) not in weights]  # of dropout
        self._state = [*variables, *(moment for pair in moments for moment in pair), *seeds]
        self._variables, self._steps, self._strategy = variables, 0, tf.distribute.get_strategy()

        def gradients_of(inputs: Any, targets: Any, count: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                probabilities = quick(tf.cast(inputs, tf.float32), training=True)
                if prior is not None:
                    probabilities = probabilities * prior
                    probabilities /= tf.reduce_sum(probabilities, axis=1, keepdims=True)
                log_probabilities = tf.math.log(tf.maximum(probabilities, 1e-7))
                loss = -tf.reduce_sum(targets * log_probabilities) / count
            return loss, tape.gradient(loss, variables)

        def update(variable: Any, first: Any, second: Any, gradient: Any, rate: Any, decay: float, number: Any) -> None:
            if decay:
                variable.assign(variable * (1 - decay * rate))
            # One pass over memory, where an optimizer of Keras makes about ten.
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

        # A free first dimension: the last batch is smaller, and another graph would take seconds to build. Values that
        # are spread over devices have no signature.
        batch = [
            tf.TensorSpec((None, *network.input_shape[1:]), dtype),
            tf.TensorSpec((None, *network.output_shape[1:]), tf.float32),
        ]
        is_one = self._strategy.num_replicas_in_sync == 1
        signature = [*batch, *[tf.TensorSpec((), tf.float32)] * 3] if is_one else None

        @tf.function(input_signature=signature, reduce_retracing=not is_one)
        def step(inputs: Any, targets: Any, count: Any, learning_rate: Any, number: Any) -> Any:
            both = self._strategy.run(gradients_of, (inputs, targets, count))
            loss, gradients = (self._strategy.reduce("sum", part, axis=None) for part in both)
            for variable, pair, gradient, (rate, decay) in zip(variables, moments, gradients, plan, strict=True):
                arguments = (*pair, gradient, rate * learning_rate, decay, number)
                self._strategy.extended.update(variable, update, arguments)
            return loss

        @tf.function(input_signature=batch[:1])
        def predict(inputs: Any) -> Any:
            return quick(tf.cast(inputs, tf.float32), training=False)

        self._step, self._predict = step, predict

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
        batches = np.split(np.arange(len(images)), range(_VAL_BATCH, len(images), _VAL_BATCH))
        return np.concatenate([self._predict(inputs).numpy() for inputs in images.inputs(batches, 0)])

    def weights(self) -> list[np.ndarray]:
        """Return the values of what is trained."""
        return [variable.numpy() for variable in self._variables]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Give what is trained these values."""
        for variable, weight in zip(self._variables, weights, strict=True):
            variable.assign(weight)

    def state(self) -> list[np.ndarray]:
        """Return all that the next step depends on, beside its batch."""
        return [np.array(self._steps), *(variable.numpy() for variable in self._state)]

    def restore(self, state: Sequence[np.ndarray]) -> None:
        """Go back to a state."""
        self._steps = int(state[0])
        for variable, value in zip(self._state, state[1:], strict=True):
            variable.assign(value)


class Training:
    """A training from its first epoch to its last, in one process or in several."""

    def __init__(
        self,
        trainer: Trainer,
        train: Images,
        val: Images,
        num_classes: int,
        settings: FineTune,
        *,
        class_weight: ClassWeight,
        seed: int,
        checkpoint: Checkpoint,
    ) -> None:
        """Go on from the checkpoint, or score the network as it is.

        Args:
            trainer: of the network.
            train: trained on; each image is visited once per epoch, in an order that follows from seed and epoch.
            val: chooses the epoch.
            num_classes: width of the targets.
            settings: the section `fine_tune` of params.yaml.
            class_weight: what is done for rare classes; the trainer has its part of it.
            seed: of the order.
            checkpoint: written after each epoch.
        """
        self._trainer, self._train, self._val, self._settings, self._seed = trainer, train, val, settings, seed
        smoothing = settings.label_smoothing
        self._targets = (np.eye(num_classes) * (1 - smoothing) + smoothing / num_classes).astype(np.float32)
        self._targets *= weights_of(class_weight, train.class_indices, num_classes)[:, None]
        self._checkpoint = checkpoint
        kept = checkpoint.read()
        self.is_begun = kept is not None
        if kept:
            self._resume(kept)
        else:
            first = self._score(0, None)
            self.curve, self.best, self.before = [first[0]], first[0], first[1]
            self.after, self._best_weights = self.before, trainer.weights()

    def run(self, on_epoch: Callable[[Epoch], None]) -> Trained:
        """Train until the last epoch or until patience is over, and leave the weights of the best epoch in place."""
        while self.curve[-1].epoch < self._settings.epochs and self._is_patient():
            number = self.curve[-1].epoch + 1
            epoch, predicted = self._score(number, self.train_epoch(number))
            self.curve.append(epoch)
            if epoch.val.is_better_than(self.best.val):
                self.best, self.after, self._best_weights = epoch, predicted, self._trainer.weights()
            self._checkpoint.write(self._arrays())
            on_epoch(epoch)
        self._trainer.set_weights(self._best_weights)
        return Trained(self.curve, self.best, self.before, self.after)

    def train_epoch(self, epoch: int) -> float:
        """Visit every training image once, in epoch 1, 2, ..., and return the mean loss."""
        batches, settings, loss = self._batches(epoch), self._settings, 0.0
        for number, (chosen, inputs) in enumerate(zip(batches, self._train.inputs(batches, epoch), strict=True)):
            share = _schedule(epoch - 1 + number / len(batches), settings.epochs)
            targets = self._targets[self._train.class_indices[chosen]]
            loss += self._trainer.step(inputs, targets, settings.learning_rate * share) * len(chosen)
        return loss / len(self._train)

    def seconds(self) -> float:
        """Return about how long `run` will take: a few steps are timed, and taken back."""
        state, ends = self._trainer.state(), []
        batches = self._batches(1)[: _TIMED_STEPS + 1]
        for chosen, inputs in zip(batches, self._train.inputs(batches, 1), strict=True):
            self._trainer.step(inputs, self._targets[self._train.class_indices[chosen]], 0.0)
            ends.append(time.perf_counter())
        self._trainer.restore(state)
        # The first step also builds the graph; where there is no other one, that is all there is to time.
        per_step = float(np.median(np.diff(ends))) if len(ends) > 1 else 0.0
        start = time.perf_counter()
        self._trainer.predict(Images(self._val.inputs, self._val.class_indices[:_VAL_BATCH]))
        per_val_image = (time.perf_counter() - start) / min(_VAL_BATCH, len(self._val))
        return self._settings.epochs * (len(self._batches(1)) * per_step + len(self._val) * per_val_image)

    def _is_patient(self) -> bool:
        return self.curve[-1].epoch - self.best.epoch < self._settings.patience

    def _batches(self, epoch: int) -> list[np.ndarray]:
        """Return the positions of each step's images; within a batch in the order of the store, read fastest."""
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._train))
        size = self._settings.batch_size
        return [np.sort(batch) for batch in np.split(order, range(size, len(order), size))]

    def _score(self, number: int, train_loss: float | None) -> tuple[Epoch, np.ndarray]:
        probabilities = self._trainer.predict(self._val)
        return Epoch(number, train_loss, score(self._val.class_indices, probabilities)), probabilities.argmax(axis=1)

    def _arrays(self) -> dict[str, np.ndarray]:
        """What `_resume` needs."""
        rows = [(epoch.train_loss or 0.0, epoch.val.accuracy, epoch.val.log_loss) for epoch in self.curve]
        return {
            "curve": np.array(rows),  # float64 keeps every bit
            "best_epoch": np.array(self.best.epoch),
            "before": self.before,
            "after": self.after,
            **{f"state{number}": value for number, value in enumerate(self._trainer.state())},
            **{f"best{number}": value for number, value in enumerate(self._best_weights)},
        }

    def _resume(self, kept: dict[str, np.ndarray]) -> None:
        self.curve = [
            Epoch(number, loss if number else None, Score(accuracy, log_loss))
            for number, (loss, accuracy, log_loss) in enumerate(kept["curve"].tolist())
        ]
        self.best = self.curve[int(kept["best_epoch"])]
        self.before, self.after = kept["before"], kept["after"]
        self._best_weights = _numbered(kept, "best")
        self._trainer.restore(_numbered(kept, "state"))


def _schedule(epochs_done: float, epochs: int) -> float:
    """Return the learning rate as a share of its peak.

    One epoch of linear warm-up, so that the first steps of a fresh optimizer do not shake pretrained weights; then a
    cosine to zero (Loshchilov & Hutter, "SGDR", 2017, equation 5, without restarts).
    """
    if epochs_done < 1:
        return epochs_done
    return (1 + cos(pi * (epochs_done - 1) / max(1, epochs - 1))) / 2


def _numbered(arrays: dict[str, np.ndarray], stem: str) -> list[np.ndarray]:
    """Return the arrays stem0, stem1, ..."""
    return [arrays[f"{stem}{number}"] for number in range(len(arrays)) if f"{stem}{number}" in arrays]
