"""Training the heads of a sweep: all at once, on features that are read row by row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from regraft.config import TrainHead
from regraft.features.table import Features
from regraft.training.batched_heads import HeadSettings, Stack, glorot_uniform, random_bits
from regraft.training.class_weights import objective_of, prior_of, weights_of
from regraft.training.keras_models import Epoch
from regraft.training.metrics import score
from regraft.training.network_file import Head

_VAL_ROWS = 4096  # of val in memory at a time


@dataclass(frozen=True, slots=True)
class TrainedHead(Head):
    """A head as it was at its lowest loss on val, which is the log loss or the balanced one (`objective_of`)."""

    curve: list[Epoch]  # from epoch 0 (before training) on
    best: Epoch
    right: np.ndarray  # whether it names each val image rightly, bool, shape (images of val,)


def train_heads(
    features: Features,
    sweep: Sequence[HeadSettings],
    config: TrainHead,
    *,
    seed: int,
    on_epoch: Callable[[int], None],
    share: float = 1.0,
) -> list[TrainedHead]:
    """Train one head per setting on the features of train, all of them at once.

    Cross-entropy against smoothed targets. Every head starts from the same kernels, those of the logits from zero, and
    sees the same images in the same order. One that has not improved on val for `patience` epochs leaves, and the
    others go on.

    Args:
        features: of the images; those of test are not looked at.
        sweep: a setting per head.
        config: batch size, epochs, patience, and how rare classes are helped.
        seed: of hidden kernels, order and dropout.
        on_epoch: called after each epoch with its number.
        share: of the images of each train class that are used, at least one.
    """
    return _Sweep(features, sweep, config, seed=seed, share=share).run(on_epoch)


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

    def __init__(
        self, features: Features, sweep: Sequence[HeadSettings], config: TrainHead, *, seed: int, share: float
    ) -> None:
        self._features, self._config, self._num_classes = features, config, len(features.class_names)
        self._train, self._val = features.positions("train"), features.positions("val")
        if share < 1:
            self._train = self._train[_is_in_share(features, self._train, share)]
        self._classes, self._val_classes = (features.class_indices[part] for part in (self._train, self._val))
        self._weights = weights_of(config.class_weight, self._classes, self._num_classes)[self._classes]
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
                self._note_epoch(epoch, [loss / len(self._train) for loss in self._train_epoch()])
                on_epoch(epoch)
                self._drop_finished()
                if not self._stacks:
                    break
        return [run.result() for run in self._runs]

    def _stack(self, settings: list[HeadSettings], seed: int) -> Stack:
        units, features = settings[0].hidden_units, self._features
        hidden = [glorot_uniform(np.random.default_rng([seed, 0, units]), features.dim, units)] if units else []
        prior = prior_of(self._config.class_weight, self._classes, self._num_classes)
        log_prior = np.zeros(self._num_classes, np.float32) if prior is None else np.log(prior)
        # Training moves a kernel little outside of what the photos of train span. With few photos that is a small part
        # of the feature space; a random start would stay as it is in the rest, where other photos also lie.
        return Stack(settings, [*hidden, np.zeros((self._num_classes, units or features.dim), np.float32)], log_prior)

    def _train_epoch(self) -> list[np.ndarray]:
        """Visit every training image once and return each stack's summed losses."""
        order = self._order.permutation(len(self._train))
        losses = [np.zeros(len(heads)) for heads, _ in self._stacks]
        for first in range(0, len(order), self._config.batch_size):
            chosen = order[first : first + self._config.batch_size]
            bits = {
                width: random_bits(random, len(chosen), width or self._features.dim)
                for width, random in self._droppers.items()
            }
            inputs = self._features.read(self._train[chosen])
            for (heads, _), loss in zip(self._stacks, losses, strict=True):
                loss += heads.step(inputs, self._classes[chosen], self._weights[chosen], bits)
        return losses

    def _note_epoch(self, epoch: int, losses: list[Any]) -> None:
        """Score every head on val, add the epoch to its curve, and copy the weights of those that became better."""
        outputs = [np.empty((len(heads), len(self._val), self._num_classes), np.float32) for heads, _ in self._stacks]
        for first in range(0, len(self._val), _VAL_ROWS):
            rows = slice(first, first + _VAL_ROWS)
            inputs = self._features.read(self._val[rows])
            for (heads, _), output in zip(self._stacks, outputs, strict=True):
                output[:, rows] = heads.probabilities(inputs)
        for (heads, group), loss, output in zip(self._stacks, losses, outputs, strict=True):
            for head, run in enumerate(group):
                val = score(self._val_classes, output[head])
                run.curve.append(Epoch(epoch, None if loss is None else float(loss[head]), val))
                if run.best is None or self._loss_of(val) < self._loss_of(run.best.val):
                    run.best, run.weights = run.curve[-1], heads.weights(head)
                    run.right = output[head].argmax(axis=1) == self._val_classes

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


def _is_in_share(features: Features, positions: np.ndarray, share: float) -> np.ndarray:
    """Choose a share of each class by digest: the same images every time, and those of a smaller share among them."""
    table = pd.DataFrame({"digest": [int(features.digests[position][:15], 16) for position in positions]})
    by_class = table.digest.groupby(features.class_indices[positions])
    return (by_class.rank(method="dense") <= (share * by_class.transform("nunique")).round().clip(lower=1)).to_numpy()
