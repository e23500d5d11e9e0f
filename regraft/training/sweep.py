"""Training the heads of a sweep, on features that are read row by row.

Linear heads are solved for (`logistic`); those with a hidden layer are trained side by side (`batched_heads`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from regraft.core.config import TrainHead
from regraft.features.table import Features
from regraft.training.batched_heads import HeadSettings, Stack, glorot_uniform, random_bits
from regraft.training.class_weights import objective_of, prior_of, weights_of
from regraft.training.compared import Rows
from regraft.training.keras_models import Epoch
from regraft.training.logistic import Problem, fit_linear
from regraft.training.metrics import Score, log_losses, score, score_of
from regraft.training.network_file import Head

_VAL_ROWS = 4096  # of val in memory at a time
_PENALTY_IMAGES = 1000  # of train for which the penalty of a linear head is as its setting says


@dataclass(frozen=True, slots=True)
class TrainedHead(Head):
    """A head as it was at its lowest loss on val, which is the log loss or the balanced one (`objective_of`).

    A linear one is the optimum of its own loss, whatever it says of val.
    """

    curve: list[Epoch]  # from epoch 0 (before training) on; of a linear head the first and the last
    best: Epoch
    right: np.ndarray  # whether it names each val image rightly, bool, shape (images of val,)

    @property
    def is_finite(self) -> bool:
        """Whether its weights and the losses of its training are finite numbers."""
        losses = [epoch.train_loss for epoch in self.curve if epoch.train_loss is not None]
        return all(bool(np.isfinite(values).all()) for values in (losses, *self.weights))


def train_heads(
    rows: Rows, sweep: Sequence[HeadSettings], config: TrainHead, *, seed: int, on_epoch: Callable[[int], None]
) -> list[TrainedHead]:
    """Train one head per setting on the features of train.

    Cross-entropy against smoothed targets. A linear head is the one with the lowest loss. Those with a hidden layer
    start from the same kernels, those of the logits from zero, and see the same images in the same order. One that has
    not improved on val for `patience` epochs leaves, and the others go on.

    Args:
        rows: of the features that are trained on, and those that heads are judged by.
        sweep: a setting per head.
        config: batch size, epochs, patience, and how rare classes are helped.
        seed: of hidden kernels, order and dropout; a linear head needs none.
        on_epoch: called after each epoch with its number.
    """
    images = _Images.of(rows, config)
    linear = [settings for settings in sweep if not settings.hidden_units]
    others = [settings for settings in sweep if settings.hidden_units]
    solved = iter(_solve(images, linear, config, on_epoch) if linear else [])
    trained = iter(_Sweep(images, others, config, seed=seed).run(on_epoch) if others else [])
    return [next(trained if settings.hidden_units else solved) for settings in sweep]


@dataclass(frozen=True, slots=True)
class _Images:
    """What heads are trained on, and scored by."""

    features: Features
    train: np.ndarray  # positions of their rows
    val: np.ndarray
    classes: np.ndarray  # of train
    val_classes: np.ndarray
    weights: np.ndarray  # of each of train in the loss, float32
    log_prior: np.ndarray  # added to the logits while training, float32, (num_classes,)

    @classmethod
    def of(cls, rows: Rows, config: TrainHead) -> "_Images":
        features, train, val = rows.features, rows.train, rows.val
        classes, num_classes = features.class_indices[train], len(features.class_names)
        weights = weights_of(config.class_weight, classes, num_classes)[classes]
        prior = prior_of(config.class_weight, classes, num_classes)
        log_prior = np.zeros(num_classes, np.float32) if prior is None else np.log(prior)
        return cls(features, train, val, classes, features.class_indices[val], weights, log_prior)

    def judge(self, count: int, outputs_of: Callable[[np.ndarray], Any]) -> list[tuple[Score, np.ndarray]]:
        """Return the figures of `count` heads on val, and whether each names each image rightly.

        What they say of some rows is in memory at a time, given by `outputs_of` their features: (count, rows, classes).
        """
        losses, right = np.empty((count, len(self.val))), np.empty((count, len(self.val)), bool)
        for first in range(0, len(self.val), _VAL_ROWS):
            rows = slice(first, first + _VAL_ROWS)
            for head, output in enumerate(outputs_of(self.features.read(self.val[rows]))):
                losses[head, rows] = log_losses(self.val_classes[rows], output)
                right[head, rows] = output.argmax(axis=1) == self.val_classes[rows]
        return [(score_of(self.val_classes, *each), each[1]) for each in zip(losses, right, strict=True)]


def _solve(
    images: _Images, sweep: list[HeadSettings], config: TrainHead, on_epoch: Callable[[int], None]
) -> list[TrainedHead]:
    """Find the linear heads with the lowest loss, one per setting."""
    problem = Problem(images.features, images.train, images.classes, images.weights, images.log_prior)
    # What is best falls with more images: on four data sets and 25 to 2,500 images about as their root does.
    relative = (_PENALTY_IMAGES / len(images.train)) ** 0.5
    penalties = [each.weight_decay * relative for each in sweep]
    smoothing = [each.label_smoothing for each in sweep]
    weights, losses, passes = fit_linear(problem, penalties, smoothing, max_passes=config.epochs, on_pass=on_epoch)
    heads = [Head(settings, each) for settings, each in zip(sweep, weights, strict=True)]
    judged = images.judge(len(heads), lambda inputs: (head.probabilities(inputs) for head in heads))
    undecided = np.broadcast_to(np.float32(1 / len(images.log_prior)), (len(images.val), len(images.log_prior)))
    start = Epoch(0, None, score(images.val_classes, undecided))
    trained = []
    for head, loss, (val, right) in zip(heads, losses, judged, strict=True):
        end = Epoch(passes, loss, val)
        trained.append(TrainedHead(head.settings, head.weights, [start, end], end, right))
    return trained


class _Run:
    """One setting's way through the training."""

    def __init__(self, settings: HeadSettings) -> None:
        self.settings = settings
        self.curve: list[Epoch] = []
        self.best: Epoch | None = None
        self.weights: list[np.ndarray] = []
        self.right = np.zeros(0, bool)

    def is_over(self, patience: int) -> bool:
        return self.best is not None and self.curve[-1].epoch - self.best.epoch >= patience

    def result(self) -> TrainedHead:
        assert self.best is not None  # epoch 0 was noted
        return TrainedHead(self.settings, self.weights, self.curve, self.best, self.right)


class _Sweep:
    """The heads of one training: what they are trained on, and how far each has come."""

    def __init__(self, images: _Images, sweep: Sequence[HeadSettings], config: TrainHead, *, seed: int) -> None:
        self._images, self._config = images, config
        self._loss_of = objective_of(config.class_weight).loss_of
        self._runs = [_Run(settings) for settings in sweep]
        groups: dict[Any, list[_Run]] = {}
        for run in self._runs:
            groups.setdefault(run.settings.stack_key, []).append(run)
        self._stacks = [(self._stack([run.settings for run in group], seed), group) for group in groups.values()]
        self._order = np.random.default_rng([seed, 1])
        # A generator for the inputs (0) and one for each width of hidden layers: what a head drops does not depend on
        # what else is tried.
        widths = {width for settings in sweep if settings.dropout for width in (0, settings.hidden_units)}
        self._droppers = {width: np.random.default_rng([seed, 2, width]) for width in widths}

    def run(self, on_epoch: Callable[[int], None]) -> list[TrainedHead]:
        """Train until the last epoch, or until no head improves any more."""
        # For products of this size more threads take twice the processor's time for a tenth less of ours; and where
        # other programs run, they wait for each other most of the time.
        with threadpool_limits(1, user_api="blas"):
            self._note_epoch(0, [None] * len(self._stacks))
            for epoch in range(1, self._config.epochs + 1):
                self._note_epoch(epoch, [loss / len(self._images.train) for loss in self._train_epoch()])
                on_epoch(epoch)
                self._drop_finished()
                if not self._stacks:
                    break
        return [run.result() for run in self._runs]

    def _stack(self, settings: list[HeadSettings], seed: int) -> Stack:
        units, images = settings[0].hidden_units, self._images
        hidden = glorot_uniform(np.random.default_rng([seed, 0, units]), images.features.dim, units)
        # Training moves a kernel little outside of what the photos of train span. With few photos that is a small part
        # of the feature space; a random start would stay as it is in the rest, where other photos also lie.
        return Stack(settings, [hidden, np.zeros((len(images.log_prior), units), np.float32)], images.log_prior)

    def _train_epoch(self) -> list[np.ndarray]:
        """Visit every training image once and return each stack's summed losses."""
        images = self._images
        order = self._order.permutation(len(images.train))
        losses = [np.zeros(len(heads)) for heads, _ in self._stacks]
        for first in range(0, len(order), self._config.batch_size):
            chosen = order[first : first + self._config.batch_size]
            bits = {
                width: random_bits(random, len(chosen), width or images.features.dim)
                for width, random in self._droppers.items()
            }
            inputs = images.features.read(images.train[chosen])
            for (heads, _), loss in zip(self._stacks, losses, strict=True):
                loss += heads.step(inputs, images.classes[chosen], images.weights[chosen], bits)
        return losses

    def _note_epoch(self, epoch: int, losses: list[Any]) -> None:
        """Score every head on val, add the epoch to its curve, and copy the weights of those that became better."""
        stacks = [heads for heads, _ in self._stacks]
        judged = iter(
            self._images.judge(
                sum(map(len, stacks)), lambda inputs: (each for heads in stacks for each in heads.probabilities(inputs))
            )
        )
        for (heads, group), loss in zip(self._stacks, losses, strict=True):
            for head, run in enumerate(group):
                val, right = next(judged)
                run.curve.append(Epoch(epoch, None if loss is None else float(loss[head]), val))
                if run.best is None or self._loss_of(val) < self._loss_of(run.best.val):
                    run.best, run.weights, run.right = run.curve[-1], heads.weights(head), right

    def _drop_finished(self) -> None:
        """Let heads go whose patience is over."""
        running = []
        for heads, group in self._stacks:
            stays = [not run.is_over(self._config.patience) for run in group]
            if not all(stays):
                heads.keep(stays)
            if any(stays):
                running.append((heads, [run for run, stay in zip(group, stays, strict=True) if stay]))
        self._stacks = running
