"""The head: the new classifier on top of the backbone's pooled features, chosen from a sweep over its settings.

`train_heads` trains all settings of a sweep at once. `find_head` picks the one with the lowest cross-entropy on val and
trains it once more alone, so that its weights follow from its own settings and not from what else was tried.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from regraft.config import TrainHead
from regraft.features.table import Features
from regraft.files import replacing
from regraft.training.batched_heads import HeadSettings, Stack, glorot_uniform, random_bits
from regraft.training.class_weights import prior_of, weights_of
from regraft.training.keras_models import Epoch
from regraft.training.metrics import score

if TYPE_CHECKING:
    import keras

_VAL_ROWS = 4096  # of val in memory at a time
# The head of Keras' transfer learning examples: Dense(1024, relu), softmax, RMSprop as it comes.
_CLASSIC = HeadSettings(1024, "relu", "rmsprop", 0.0, 0.001, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """A head as it was at its lowest cross-entropy on val."""

    settings: HeadSettings
    weights: list[np.ndarray]  # float32, in the order of `build_head(...).weights`
    curve: list[Epoch]  # from epoch 0 (before training) on
    best: Epoch


def settings_of(config: TrainHead) -> list[HeadSettings]:
    """Return every combination that the section `train_head` of params.yaml names, in its order."""
    sweep: list[HeadSettings] = []
    for kind in config.kind:
        if kind == "classic":
            sweep.append(_CLASSIC)
            continue
        units = config.hidden_units if kind == "mlp" else 0
        values = product(config.dropout, config.learning_rate, config.weight_decay, config.label_smoothing)
        sweep += [HeadSettings(units, config.activation, "adamw", *each) for each in values]
    return sweep


def build_head(feature_dim: int, num_classes: int, settings: HeadSettings) -> "keras.Model":
    """Return the head with random weights: linear, or with one hidden layer.

    Input: float32, shape (n, feature_dim). Output `probabilities`: float32, shape (n, num_classes), rows sum to 1.
    """
    import keras
    from keras import layers

    hidden = []
    if settings.hidden_units:
        hidden = [
            layers.Dense(settings.hidden_units, activation=settings.activation, name="head_hidden"),
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


def to_keras(trained: TrainedHead) -> "keras.Model":
    """Return a trained head as a Keras model."""
    head = build_head(len(trained.weights[0]), len(trained.weights[-1]), trained.settings)
    head.set_weights(trained.weights)
    return head


def find_head(
    features: Features, config: TrainHead, *, seed: int, watch: Callable[[str], Callable[[int], None]]
) -> tuple[TrainedHead, list[TrainedHead]]:
    """Train every setting of the sweep; return the best head on val, trained alone, and all, best first.

    The winner is not trained on val afterwards: fine-tuning is judged there next. `watch` is given what is trained and
    returns what is called with the number of each epoch.
    """
    sweep = settings_of(config)
    everyone = train_heads(features, sweep, config, seed=seed, on_epoch=watch("sweep"))
    ranked = sorted(everyone, key=lambda trained: trained.best.val.log_loss)
    if len(sweep) == 1:
        return ranked[0], ranked
    (winner,) = train_heads(features, [ranked[0].settings], config, seed=seed, on_epoch=watch("winner"))
    return winner, ranked


def learning_curve(
    features: Features,
    winner: TrainedHead,
    config: TrainHead,
    *,
    seed: int,
    watch: Callable[[str], Callable[[int], None]],
) -> dict[float, float]:
    """Return the accuracy on val that the winner's settings reach with shares of the training images, by share."""
    curve = {}
    for share in sorted(config.learning_curve):
        on_epoch = watch(f"{share:.0%}")
        (part,) = train_heads(features, [winner.settings], config, seed=seed, on_epoch=on_epoch, share=share)
        curve[share] = part.best.val.accuracy
    return curve


def write_leaderboard(path: Path, ranked: list[TrainedHead]) -> None:
    """Write every head that was tried as CSV, the best on val first."""
    rows = [
        {
            **asdict(trained.settings),
            "val_accuracy": trained.best.val.accuracy,
            "val_log_loss": trained.best.val.log_loss,
        }
        | {"best_epoch": trained.best.epoch}
        for trained in ranked
    ]
    with replacing(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)


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
    train, val = features.positions("train"), features.positions("val")
    if share < 1:
        train = train[_is_in_share(features, train, share)]
    classes, val_classes = features.class_indices[train], features.class_indices[val]
    num_classes = len(features.class_names)
    weights = weights_of(config.class_weight, classes, num_classes)[classes]
    prior = prior_of(config.class_weight, classes, num_classes)
    log_prior = np.zeros(num_classes, np.float32) if prior is None else np.log(prior)

    def stack(settings: list[HeadSettings]) -> Stack:
        units = settings[0].hidden_units
        hidden = [glorot_uniform(np.random.default_rng([seed, 0, units]), features.dim, units)] if units else []
        # Training moves a kernel little outside of what the photos of train span. With few photos that is a small part
        # of the feature space; a random start would stay as it is in the rest, where other photos also lie.
        return Stack(settings, [*hidden, np.zeros((num_classes, units or features.dim), np.float32)], log_prior)

    runs = [_Run(settings) for settings in sweep]
    groups: dict[Any, list[_Run]] = {}
    for run in runs:
        groups.setdefault(run.settings.stack_key, []).append(run)
    stacks = [(stack([run.settings for run in group]), group) for group in groups.values()]
    order_random = np.random.default_rng([seed, 1])
    # A generator for the inputs (0) and one for each width of hidden layers: what a head drops does not depend on what
    # else is tried.
    widths = {width for settings in sweep if settings.dropout for width in (0, settings.hidden_units)}
    droppers = {width: np.random.default_rng([seed, 2, width]) for width in widths}
    # For products of this size more threads take twice the processor's time for a tenth less of ours; and where other
    # programs run, they wait for each other most of the time.
    with threadpool_limits(1, user_api="blas"):
        _note_epoch(0, [None] * len(stacks), stacks, features, val, val_classes)
        for epoch in range(1, config.epochs + 1):
            order = order_random.permutation(len(train))
            losses = [np.zeros(len(heads)) for heads, _ in stacks]
            for first in range(0, len(train), config.batch_size):
                chosen = order[first : first + config.batch_size]
                bits = {key: random_bits(random, len(chosen), key or features.dim) for key, random in droppers.items()}
                inputs = features.read(train[chosen])
                for (heads, _), loss in zip(stacks, losses, strict=True):
                    loss += heads.step(inputs, classes[chosen], weights[chosen], bits)
            _note_epoch(epoch, [loss / len(train) for loss in losses], stacks, features, val, val_classes)
            on_epoch(epoch)
            stacks = _still_running(stacks, config.patience)
            if not stacks:
                break
    return [run.result() for run in runs]


class _Run:
    """One setting's way through the training."""

    def __init__(self, settings: HeadSettings) -> None:
        self.settings = settings
        self.curve: list[Epoch] = []
        self.best: Epoch | None = None
        self.weights: list[np.ndarray] = []

    def is_over(self, patience: int) -> bool:
        return self.best is not None and self.curve[-1].epoch - self.best.epoch >= patience

    def result(self) -> TrainedHead:
        assert self.best is not None  # epoch 0 was noted
        return TrainedHead(self.settings, self.weights, self.curve, self.best)


_Stacks = list[tuple[Stack, list[_Run]]]


def _note_epoch(
    epoch: int,
    losses: list[Any],
    stacks: _Stacks,
    features: Features,
    positions: np.ndarray,
    class_indices: np.ndarray,
) -> None:
    """Score every head on val, add the epoch to its curve, and keep the weights of those that became better."""
    num_classes = len(features.class_names)
    outputs = [np.empty((len(stack), len(positions), num_classes), np.float32) for stack, _ in stacks]
    for first in range(0, len(positions), _VAL_ROWS):
        rows = slice(first, first + _VAL_ROWS)
        inputs = features.read(positions[rows])
        for (stack, _), output in zip(stacks, outputs, strict=True):
            output[:, rows] = stack.probabilities(inputs)
    for (stack, group), loss, output in zip(stacks, losses, outputs, strict=True):
        for head, run in enumerate(group):
            val = score(class_indices, output[head])
            run.curve.append(Epoch(epoch, None if loss is None else float(loss[head]), val))
            if run.best is None or val.log_loss < run.best.val.log_loss:
                run.best, run.weights = run.curve[-1], stack.weights(head)


def _still_running(stacks: _Stacks, patience: int) -> _Stacks:
    """Let heads go whose patience is over."""
    running = []
    for stack, group in stacks:
        stays = [not run.is_over(patience) for run in group]
        if not all(stays):
            stack.keep(stays)
        if any(stays):
            running.append((stack, [run for run, stay in zip(group, stays, strict=True) if stay]))
    return running


def _is_in_share(features: Features, positions: np.ndarray, share: float) -> np.ndarray:
    """Choose a share of each class by digest: the same images every time, and those of a smaller share among them."""
    table = pd.DataFrame({"digest": [int(features.digests[position][:15], 16) for position in positions]})
    by_class = table.digest.groupby(features.class_indices[positions])
    return (by_class.rank(method="dense") <= (share * by_class.transform("nunique")).round().clip(lower=1)).to_numpy()
