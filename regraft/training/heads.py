"""The head: the new classifier on the backbone's pooled features, chosen from a sweep over its settings.

A linear head is solved for (`logistic`); the classic one is trained by Keras. `find_head` picks the one with the lowest
loss on val. Where photos are many, settings are compared on a sample, and the best is then trained on all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from regraft.core.config import ClassWeight, TrainHead
from regraft.core.csv_files import read_csv, write_csv
from regraft.core.errors import RegraftError
from regraft.features.table import Features
from regraft.photos.sample import stable_sample
from regraft.training.logistic import Problem, fit_linear
from regraft.training.metrics import Epoch, Score, class_prior, class_weights, log_losses, objective_of, score, score_of
from regraft.training.network_file import Head, HeadSettings, build_head, start_keras

if TYPE_CHECKING:
    import keras

MAX_EPOCHS = 100  # passes over the training images; a linear head takes some 20 to 60
MAX_PHOTOS = 100_000  # that settings are compared on; on so many of val an accuracy is known to 0.3 points
_DROPOUT = 0.2  # of a linear head while it is fine-tuned
# The head of Keras' transfer learning examples: Dense(1024, relu), softmax, RMSprop with its default settings.
_CLASSIC = HeadSettings(1024, "relu", "rmsprop", 0.0, 0.001, 0.0, 0.0)
_BATCH_SIZE, _PATIENCE = 64, 12  # of the classic head: images per step, epochs without a lower loss on val
_VAL_ROWS = 4096  # of val in memory at a time
_PENALTY_IMAGES = 1000  # of train, for which the penalty of a linear head is exactly its setting
_LEADERBOARD = {"hidden_units": int, "activation": str, "optimizer": str, "dropout": float, "learning_rate": float}
_LEADERBOARD |= {"weight_decay": float, "label_smoothing": float}
_LEADERBOARD |= {f"val_{field.name}": float for field in fields(Score)} | {"best_epoch": int}

Watch = Callable[[str], Callable[[int], None]]  # given a name for the training; its result is called with each epoch


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of features: of train, which heads are trained on, and of val, which judges them."""

    features: Features
    train: np.ndarray  # positions
    val: np.ndarray

    @classmethod
    def of(cls, features: Features) -> "Rows":
        """Return all rows of both splits."""
        return cls(features, features.positions("train"), features.positions("val"))

    @property
    def photos(self) -> int:
        """Number of photos of train."""
        return int(np.count_nonzero(self.features.views[self.train] == 0))

    def sample(self, most: int) -> "Rows":
        """Return the rows of at most so many photos of each split, in all their views: see `stable_sample`.

        Each class keeps its share of both, and of train at least one photo.
        """
        return replace(self, train=self._some(self.train, most, least=1), val=self._some(self.val, most, least=0))

    def share(self, share: float) -> "Rows":
        """Return a share of the photos of each class of train, at least one, and all of val.

        They are chosen by digest: the same photos every time, and a smaller share is part of a larger one.
        """
        numbers = [int(digest[:15], 16) for digest in self.digests(self.train)]
        by_class = pd.Series(numbers).groupby(self.features.class_indices[self.train])
        most = (share * by_class.transform("nunique")).round().clip(lower=1)
        return replace(self, train=self.train[(by_class.rank(method="dense") <= most).to_numpy()])

    def digests(self, positions: np.ndarray) -> list[str]:
        """Return the SHA-256 of the photos of some rows."""
        return [self.features.digests[int(position)] for position in positions]

    def _some(self, positions: np.ndarray, most: int, least: int) -> np.ndarray:
        if np.count_nonzero(self.features.views[positions] == 0) <= most:
            return positions
        classes = self.features.class_indices[positions]
        return positions[stable_sample(self.digests(positions), classes, most, least=least)]


@dataclass(frozen=True, slots=True)
class TrainedHead(Head):
    """A classic head as it was at its lowest loss on val (`objective_of`); a linear one is the optimum of its loss."""

    curve: list[Epoch]  # from epoch 0 (before training) on; of a linear head the first and the last
    best: Epoch
    right: np.ndarray  # whether its answer is right for each val image, bool, shape (images of val,)

    @property
    def is_finite(self) -> bool:
        """Whether its weights and the losses of its training are finite numbers."""
        losses = [epoch.train_loss for epoch in self.curve if epoch.train_loss is not None]
        return all(bool(np.isfinite(values).all()) for values in (losses, *self.weights))


@dataclass(frozen=True, slots=True)
class Comparison:
    """The heads of a sweep, and the photos that they were compared on."""

    ranked: list[TrainedHead]  # one of each setting, best first
    rows: Rows
    photos: int  # of train, which the winner is trained on

    @property
    def is_sampled(self) -> bool:
        """Whether they were trained on a part of the photos of train."""
        return self.rows.photos < self.photos


def settings_of(config: TrainHead) -> list[HeadSettings]:
    """Return every combination of the section `train_head` of params.yaml, in its order."""
    linear = [
        HeadSettings(0, "relu", "lbfgs", _DROPOUT, 0.0, *each)
        for each in product(config.penalty, config.label_smoothing)
    ]
    return [settings for kind in config.kind for settings in (linear if kind == "linear" else [_CLASSIC])]


def find_head(features: Features, config: TrainHead, *, seed: int, watch: Watch) -> tuple[TrainedHead, Comparison]:
    """Train every setting of the sweep on at most `MAX_PHOTOS` photos, and the best on val on all of train.

    The winner is not trained on val afterwards: fine-tuning is judged there next.

    Raises:
        RegraftError: no setting has led to a head of finite numbers.
    """
    sweep, whole, objective = settings_of(config), Rows.of(features), objective_of(config.class_weight)
    rows = whole.sample(MAX_PHOTOS)
    heads = train_heads(rows, sweep, config.class_weight, seed=seed, on_epoch=watch("sweep"))
    ranked = sorted(heads, key=lambda trained: (not trained.is_finite, objective.loss_of(trained.best.val)))
    winner, comparison = ranked[0], Comparison(ranked, rows, whole.photos)
    if comparison.is_sampled:
        judged, settings = replace(rows, train=whole.train), [winner.settings]
        (winner,) = train_heads(judged, settings, config.class_weight, seed=seed, on_epoch=watch("winner"))
    if not winner.is_finite:
        raise RegraftError(
            "The head's training ended in weights or losses that are not finite numbers, so no head is written. The "
            "features are at fault: choose another backbone."
        )
    return winner, comparison


def learning_curve(comparison: Comparison, config: TrainHead, *, seed: int, watch: Watch) -> dict[int, np.ndarray]:
    """Return whether the best settings are right for each val image with fewer training photos, by their number.

    They are shares of the photos that settings were compared on, and these where they are not all.
    """
    best, curve = comparison.ranked[0], {}
    for share in sorted(config.learning_curve):
        rows, on_epoch = comparison.rows.share(share), watch(f"{share:.0%}")
        (trained,) = train_heads(rows, [best.settings], config.class_weight, seed=seed, on_epoch=on_epoch)
        curve[rows.photos] = trained.right
    if comparison.is_sampled:
        curve[comparison.rows.photos] = best.right
    return curve


def train_heads(
    rows: Rows, sweep: Sequence[HeadSettings], class_weight: ClassWeight, *, seed: int, on_epoch: Callable[[int], None]
) -> list[TrainedHead]:
    """Train one head per setting on the features of train, with a cross-entropy against smoothed targets.

    Args:
        rows: of the features to train on, and of those that judge.
        sweep: a setting per head.
        class_weight: how rare classes are helped.
        seed: of the classic head's first weights and of the order of images.
        on_epoch: called after each epoch with its number.
    """
    classes, num_classes = rows.features.class_indices[rows.train], len(rows.features.class_names)
    weights = class_weights(class_weight, classes, num_classes)[classes]
    prior = class_prior(class_weight, classes, num_classes)
    log_prior = np.zeros(num_classes, np.float32) if prior is None else np.log(prior)
    problem = Problem(rows.features, rows.train, classes, weights, log_prior)
    linear = [settings for settings in sweep if not settings.hidden_units]
    solved = iter(_solve(problem, rows, linear, on_epoch) if linear else [])
    loss_of = objective_of(class_weight).loss_of
    return [
        _train_classic(problem, rows, settings, seed, loss_of, on_epoch) if settings.hidden_units else next(solved)
        for settings in sweep
    ]


def _judge(rows: Rows, head: Head) -> tuple[Score, np.ndarray]:
    """Return a head's figures on val, and whether each answer is right."""
    classes = rows.features.class_indices[rows.val]
    losses, right = np.empty(len(classes)), np.empty(len(classes), bool)
    for first in range(0, len(classes), _VAL_ROWS):
        part = slice(first, first + _VAL_ROWS)
        probabilities = head.probabilities(rows.features.read(rows.val[part]))
        losses[part] = log_losses(classes[part], probabilities)
        right[part] = probabilities.argmax(axis=1) == classes[part]
    return score_of(classes, losses, right), right


def _solve(
    problem: Problem, rows: Rows, sweep: list[HeadSettings], on_epoch: Callable[[int], None]
) -> list[TrainedHead]:
    """Find the linear heads with the lowest loss, one per setting."""
    # The best penalty falls with more images: on four data sets and 25 to 2,500 images about as their root does.
    relative = (_PENALTY_IMAGES / len(rows.train)) ** 0.5
    penalties = [each.weight_decay * relative for each in sweep]
    smoothing = [each.label_smoothing for each in sweep]
    found, losses, passes = fit_linear(problem, penalties, smoothing, max_passes=MAX_EPOCHS, on_pass=on_epoch)
    num_classes, val_classes = len(problem.log_prior), rows.features.class_indices[rows.val]
    undecided = np.broadcast_to(np.float32(1 / num_classes), (len(val_classes), num_classes))
    start = Epoch(0, None, score(val_classes, undecided))
    trained = []
    for settings, weights, loss in zip(sweep, found, losses, strict=True):
        val, right = _judge(rows, Head(settings, weights))
        end = Epoch(passes, loss, val)
        trained.append(TrainedHead(settings, weights, [start, end], end, right))
    return trained


def _train_classic(
    problem: Problem,
    rows: Rows,
    settings: HeadSettings,
    seed: int,
    loss_of: Callable[[Score], float],
    on_epoch: Callable[[int], None],
) -> TrainedHead:
    """Train a head with a hidden layer by Keras, until val has not improved for some epochs."""
    import keras

    start_keras(seed)
    model = build_head(rows.features.dim, len(problem.log_prior), settings)
    cross_entropy = keras.losses.sparse_categorical_crossentropy
    trainable = keras.Model(model.inputs, model.get_layer("head_logits").output)
    trainable.compile(
        keras.optimizers.RMSprop(settings.learning_rate),
        lambda classes, logits: cross_entropy(classes, logits + problem.log_prior, from_logits=True),
    )
    best: TrainedHead | None = None
    curve: list[Epoch] = []
    for epoch in range(MAX_EPOCHS + 1):
        loss = _train_epoch(trainable, problem, _batches(len(rows.train), [seed, epoch])) if epoch else None
        head = Head(settings, model.get_weights())
        val, right = _judge(rows, head)
        curve.append(Epoch(epoch, loss, val))
        if best is None or loss_of(val) < loss_of(best.best.val):
            best = TrainedHead(settings, head.weights, curve, curve[-1], right)
        if epoch:
            on_epoch(epoch)
        if epoch - best.best.epoch >= _PATIENCE:
            break
    assert best is not None  # epoch 0 was judged
    return best


def _batches(images: int, seed: list[int]) -> Iterator[np.ndarray]:
    order = np.random.default_rng(seed).permutation(images)
    return (order[first : first + _BATCH_SIZE] for first in range(0, images, _BATCH_SIZE))


def _train_epoch(model: "keras.Model", problem: Problem, batches: Iterator[np.ndarray]) -> float:
    """Visit every training image once, and return the mean loss."""
    loss = 0.0
    for chosen in batches:
        inputs, classes = problem.features.read(problem.positions[chosen]), problem.class_indices[chosen]
        model.reset_metrics()  # Keras returns a mean since the last reset
        loss += float(model.train_on_batch(inputs, classes, problem.weights[chosen])) * len(chosen)
    return loss / len(problem.positions)


def write_leaderboard(path: Path, ranked: list[TrainedHead]) -> None:
    """Write every head that was tried as CSV, the best on val first."""
    rows = [
        asdict(trained.settings)
        | {f"val_{name}": figure for name, figure in asdict(trained.best.val).items()}
        | {"best_epoch": trained.best.epoch}
        for trained in ranked
    ]
    write_csv(path, pd.DataFrame(rows))


def read_leaderboard(path: Path) -> pd.DataFrame:
    """Return the table that `write_leaderboard` wrote."""
    return read_csv(path, _LEADERBOARD)
