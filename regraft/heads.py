"""The head: the new classifier on top of the backbone's pooled features.

Heads are small and there are many to try, so they are trained here side by side rather than one by one in Keras: the
kernels of all settings lie in one array, one matrix product serves them all, and a batch is read and dropped out once.
What was trained becomes an ordinary Keras model at the end.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from regraft.config import TrainHead
from regraft.features import Features
from regraft.metrics import Score, score
from regraft.networks import Epoch

if TYPE_CHECKING:
    import keras

_VAL_ROWS = 4096  # of val in memory at a time
_LEVELS = 2**16  # dropout compares 16 random bits with its rate
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # Kingma & Ba, "Adam", 2015; the epsilon is that of Keras


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """A head as it was at its lowest cross-entropy on val."""

    settings: TrainHead
    weights: list[np.ndarray]  # float32, in the order of `build_head(...).weights`
    curve: list[Epoch]  # from epoch 0 (before training) on
    best: Epoch


def build_head(feature_dim: int, num_classes: int, settings: TrainHead) -> "keras.Model":
    """Return the head with random weights: linear, or with one hidden ReLU layer.

    Input: float32, shape (n, feature_dim). Output `probabilities`: float32, shape (n, num_classes), rows sum to 1.
    """
    import keras
    from keras import layers

    hidden = []
    if settings.hidden_units:
        hidden = [
            layers.Dense(settings.hidden_units, activation="relu", name="head_hidden"),
            layers.Dropout(settings.dropout, name="head_hidden_dropout"),
        ]
    return keras.Sequential(
        [
            keras.Input((feature_dim,), name="pooled"),
            layers.Dropout(settings.dropout, name="head_dropout"),
            *hidden,
            layers.Dense(num_classes, name="head_logits"),
            layers.Softmax(name="probabilities"),
        ],
        name="head",
    )


def train_heads(
    features: Features, sweep: Sequence[TrainHead], *, seed: int, on_epoch: Callable[[int], None]
) -> list[TrainedHead]:
    """Train one head per setting on the features of train, all of them at once.

    Cross-entropy against smoothed targets; AdamW (Loshchilov & Hutter, 2019), whose decay leaves biases alone. Every
    head starts from the same kernels and sees the same images in the same order. One that has not improved on val for
    `patience` epochs leaves, and the others go on.

    Args:
        features: of the images; those of test are not looked at.
        sweep: settings that differ in learning rate, weight decay, dropout and label smoothing only.
        seed: of kernels, order and dropout.
        on_epoch: called after each epoch with its number.
    """
    train, val = features.positions("train"), features.positions("val")
    train_classes, val_classes = features.class_indices[train], features.class_indices[val]
    num_classes, shared = len(features.class_names), sweep[0]
    random = np.random.default_rng(seed)
    sizes = [features.dim, *([shared.hidden_units] if shared.hidden_units else []), num_classes]
    start = [_glorot_uniform(random, *ends) for ends in itertools.pairwise(sizes)]
    runs = [_Run(settings) for settings in sweep]
    # One stack per dropout rate: within it the inputs of a step are the same for all heads.
    stacks = [
        _Stack([run for run in runs if run.settings.dropout == rate], start, rate)
        for rate in sorted({settings.dropout for settings in sweep})
    ]

    def watch(epoch: int, losses: list[np.ndarray | None]) -> None:
        scores = _score_on_val(stacks, features, val, val_classes)
        for stack, loss, stack_scores in zip(stacks, losses, scores, strict=True):
            stack.note(epoch, loss, stack_scores)

    watch(0, [None] * len(stacks))
    for epoch in range(1, shared.epochs + 1):
        order = random.permutation(len(train))
        sums = [np.zeros(len(stack.runs)) for stack in stacks]
        for first in range(0, len(train), shared.batch_size):
            chosen = order[first : first + shared.batch_size]
            inputs, classes = features.read(train[chosen]), train_classes[chosen]
            bits = [random.integers(_LEVELS, size=(len(chosen), size), dtype=np.uint16) for size in sizes[:-1]]
            for stack, total in zip(stacks, sums, strict=True):
                total += stack.step(inputs, classes, bits)
        watch(epoch, [total / len(train) for total in sums])
        on_epoch(epoch)
        stacks = [stack for stack in stacks if stack.keep_running()]
        if not stacks:
            break
    return [run.result() for run in runs]


def to_keras(trained: TrainedHead) -> "keras.Model":
    """Return a trained head as a Keras model."""
    head = build_head(len(trained.weights[0]), len(trained.weights[-1]), trained.settings)
    head.set_weights(trained.weights)
    return head


class _Run:
    """One setting's way through the training."""

    def __init__(self, settings: TrainHead) -> None:
        self.settings = settings
        self.curve: list[Epoch] = []
        self.best: Epoch | None = None
        self.weights: list[np.ndarray] = []

    def result(self) -> TrainedHead:
        assert self.best is not None  # epoch 0 was noted
        return TrainedHead(self.settings, self.weights, self.curve, self.best)


class _Stack:
    """Heads that share their dropout rate: parameters of shape (heads, outputs, inputs), trained by one product."""

    def __init__(self, runs: list[_Run], start: list[np.ndarray], rate: float) -> None:
        self.runs = runs
        self._kernels = [np.repeat(kernel[None], len(runs), axis=0) for kernel in start]
        self._biases = [np.zeros((len(runs), len(kernel)), np.float32) for kernel in start]
        parameters = [*self._kernels, *self._biases]
        self._moments = [(np.zeros_like(array), np.zeros_like(array)) for array in parameters]
        self._steps = 0
        self._dropped_below = round(rate * _LEVELS)
        self._dropout_scale = np.float32(1 / (1 - self._dropped_below / _LEVELS))
        self._read_settings()

    def _read_settings(self) -> None:
        def column(name: str) -> np.ndarray:
            return np.array([getattr(run.settings, name) for run in self.runs], np.float32)

        self._learning_rates, self._decays = column("learning_rate"), column("weight_decay")
        self._smoothing = column("label_smoothing")[:, None, None]

    def step(self, inputs: np.ndarray, classes: np.ndarray, bits: list[np.ndarray]) -> np.ndarray:
        """Take one step on a batch and return each head's summed loss before it, shape (heads,)."""
        heads, batch = len(self.runs), len(inputs)
        dropped = inputs * self._mask(bits[0])
        hidden = dropped
        if len(self._kernels) == 2:
            hidden = self._first_layer(dropped)  # (batch, heads, units)
            mask = (hidden > 0) * self._mask(bits[1])[:, None]
            hidden = hidden * mask
        logits = self._logits(hidden)  # (heads, batch, classes)
        log_probabilities = _log_softmax(logits)
        num_classes = logits.shape[2]
        targets = np.broadcast_to(self._smoothing / num_classes, logits.shape).copy()
        targets[:, np.arange(batch), classes] += 1 - self._smoothing[:, :, 0]
        losses = -np.einsum("hbc,hbc->h", targets, log_probabilities)
        errors = np.exp(log_probabilities)
        errors -= targets
        errors /= batch
        if len(self._kernels) == 1:
            flat = errors.transpose(0, 2, 1).reshape(heads * num_classes, batch)
            gradients = [(flat @ dropped).reshape(self._kernels[0].shape), errors.sum(axis=1)]
        else:
            of_output = np.matmul(errors.transpose(0, 2, 1), hidden.transpose(1, 0, 2))
            of_hidden = np.empty_like(hidden)
            np.matmul(errors, self._kernels[1], out=of_hidden.transpose(1, 0, 2))
            of_hidden *= mask
            flat = of_hidden.reshape(batch, -1).T @ dropped
            gradients = [flat.reshape(self._kernels[0].shape), of_output, of_hidden.sum(axis=0), errors.sum(axis=1)]
        self._update(gradients)
        return losses

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """Return shape (heads, images, classes); nothing is dropped."""
        hidden = inputs
        if len(self._kernels) == 2:
            hidden = np.maximum(self._first_layer(inputs), 0)
        return np.exp(_log_softmax(self._logits(hidden)))

    def note(self, epoch: int, losses: np.ndarray | None, scores: list[Score]) -> None:
        """Add an epoch to every head's curve and keep the weights of those that became better."""
        for position, (run, val) in enumerate(zip(self.runs, scores, strict=True)):
            run.curve.append(Epoch(epoch, None if losses is None else float(losses[position]), val))
            if run.best is None or val.log_loss < run.best.val.log_loss:
                run.best, run.weights = run.curve[-1], self._weights(position)

    def keep_running(self) -> bool:
        """Let heads go whose patience has run out, and return whether any is left."""
        stays = [
            run.best is not None and run.curve[-1].epoch - run.best.epoch < run.settings.patience for run in self.runs
        ]
        if not all(stays):
            self.runs = [run for run, stay in zip(self.runs, stays, strict=True) if stay]
            self._kernels, self._biases = (
                [array[stays] for array in arrays] for arrays in (self._kernels, self._biases)
            )
            self._moments = [(first[stays], second[stays]) for first, second in self._moments]
            self._read_settings()
        return bool(self.runs)

    def _weights(self, position: int) -> list[np.ndarray]:
        layers = zip(self._kernels, self._biases, strict=True)
        return [array for kernel, bias in layers for array in (kernel[position].T.copy(), bias[position].copy())]

    def _mask(self, bits: np.ndarray) -> np.ndarray:
        return (bits >= self._dropped_below) * self._dropout_scale

    def _first_layer(self, inputs: np.ndarray) -> np.ndarray:
        heads, units, _ = self._kernels[0].shape
        outputs = inputs @ self._kernels[0].reshape(heads * units, -1).T
        return outputs.reshape(len(inputs), heads, units) + self._biases[0]

    def _logits(self, hidden: np.ndarray) -> np.ndarray:
        """From shape (batch, features), or (batch, heads, units), to (heads, batch, classes)."""
        if hidden.ndim == 2:
            return self._first_layer(hidden).transpose(1, 0, 2)
        return np.matmul(hidden.transpose(1, 0, 2), self._kernels[1].transpose(0, 2, 1)) + self._biases[1][:, None]

    def _update(self, gradients: list[np.ndarray]) -> None:
        self._steps += 1
        correction = np.sqrt(1 - _BETA_2**self._steps) / (1 - _BETA_1**self._steps)
        parameters = [*self._kernels, *self._biases]
        for parameter, gradient, (first, second) in zip(parameters, gradients, self._moments, strict=True):
            is_kernel = parameter.ndim == 3
            shape = (-1, *[1] * (parameter.ndim - 1))
            if is_kernel and self._decays.any():
                parameter *= (1 - self._learning_rates * self._decays).reshape(shape)
            first *= np.float32(_BETA_1)
            second *= np.float32(_BETA_2)
            step = np.multiply(gradient, np.float32(1 - _BETA_1))
            first += step
            gradient *= gradient
            gradient *= np.float32(1 - _BETA_2)
            second += gradient
            np.sqrt(second, out=step)
            step += np.float32(_EPSILON)
            np.divide(first, step, out=step)
            step *= (self._learning_rates * np.float32(correction)).reshape(shape)
            parameter -= step


def _score_on_val(
    stacks: list[_Stack], features: Features, positions: np.ndarray, class_indices: np.ndarray
) -> list[list[Score]]:
    """Score every head of every stack."""
    num_classes = len(features.class_names)
    outputs = [np.empty((len(stack.runs), len(positions), num_classes), np.float32) for stack in stacks]
    for first in range(0, len(positions), _VAL_ROWS):
        rows = slice(first, first + _VAL_ROWS)
        inputs = features.read(positions[rows])
        for stack, output in zip(stacks, outputs, strict=True):
            output[:, rows] = stack.probabilities(inputs)
    return [[score(class_indices, head) for head in output] for output in outputs]


def _glorot_uniform(random: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    """Glorot & Bengio, 2010, equation 16, as float32 of shape (outputs, inputs)."""
    limit = np.sqrt(6 / (inputs + outputs))
    return random.uniform(-limit, limit, (outputs, inputs)).astype(np.float32)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
