"""The head: the new classifier on top of the backbone's pooled features, chosen from a sweep over its settings.

`sweep.train_heads` trains all settings. `find_head` picks the one with the lowest loss on val. Where photos are many,
settings are compared on a sample of them, and the best is then trained on all. One with a hidden layer is trained once
more alone anyway, so that its weights follow from its own settings and not from what else was tried; a linear one is
the optimum of its own loss, up to what L-BFGS leaves.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from regraft.core.config import TrainHead
from regraft.core.csv_files import read_csv, write_csv
from regraft.core.errors import RegraftError
from regraft.features.table import Features
from regraft.training.batched_heads import HeadSettings
from regraft.training.class_weights import objective_of
from regraft.training.compared import Rows
from regraft.training.metrics import Score
from regraft.training.sweep import TrainedHead, train_heads

_LEADERBOARD = {"hidden_units": int, "activation": str, "optimizer": str, "dropout": float, "learning_rate": float}
_LEADERBOARD |= {"weight_decay": float, "label_smoothing": float}
_LEADERBOARD |= {f"val_{field.name}": float for field in fields(Score)} | {"best_epoch": int}
# The head of Keras' transfer learning examples: Dense(1024, relu), softmax, RMSprop as it comes.
_CLASSIC = HeadSettings(1024, "relu", "rmsprop", 0.0, 0.001, 0.0, 0.0)


def settings_of(config: TrainHead) -> list[HeadSettings]:
    """Return every combination that the section `train_head` of params.yaml names, in its order."""
    sweep: list[HeadSettings] = []
    for kind in config.kind:
        if kind == "classic":
            sweep.append(_CLASSIC)
            continue
        if kind == "linear":  # dropout is of use when it is fine-tuned
            drawn = config.activation, "lbfgs", config.dropout[0], 0.0
            sweep += [HeadSettings(0, *drawn, *each) for each in product(config.penalty, config.label_smoothing)]
            continue
        values = product(config.dropout, config.learning_rate, config.weight_decay, config.label_smoothing)
        sweep += [HeadSettings(config.hidden_units, config.activation, "adamw", *each) for each in values]
    return sweep


@dataclass(frozen=True, slots=True)
class Comparison:
    """The heads of a sweep, and the photos that they were compared on."""

    ranked: list[TrainedHead]  # one of each setting, best first
    rows: Rows  # that they were trained on and judged by
    photos: int  # of train, which the winner is trained on

    @property
    def is_sampled(self) -> bool:
        """Whether they were trained on a part of the photos of train."""
        return self.rows.photos < self.photos


def find_head(
    features: Features, config: TrainHead, *, seed: int, watch: Callable[[str], Callable[[int], None]]
) -> tuple[TrainedHead, Comparison]:
    """Train every setting of the sweep on at most `max_photos` photos, and the best on val on all of train.

    The winner is not trained on val afterwards: fine-tuning is judged there next. `watch` is given what is trained and
    returns what is called with the number of each epoch.

    Raises:
        RegraftError: no setting has led to a head of finite numbers.
    """
    sweep, whole = settings_of(config), Rows.of(features)
    rows = whole.sample(config.max_photos)
    everyone = train_heads(rows, sweep, config, seed=seed, on_epoch=watch("sweep"))
    objective = objective_of(config.class_weight)
    ranked = sorted(everyone, key=lambda trained: (not trained.is_finite, objective.loss_of(trained.best.val)))
    comparison = Comparison(ranked, rows, whole.photos)
    if not comparison.is_sampled and (len(sweep) == 1 or not ranked[0].settings.hidden_units):
        return _checked(ranked[0]), comparison
    judged = replace(rows, train=whole.train)
    (winner,) = train_heads(judged, [ranked[0].settings], config, seed=seed, on_epoch=watch("winner"))
    return _checked(winner), comparison


def _checked(head: TrainedHead) -> TrainedHead:
    if head.is_finite:
        return head
    kind = f"hidden layer of {head.settings.hidden_units}" if head.settings.hidden_units else "linear"
    raise RegraftError(
        f"The head's training ended in weights or losses that are not finite numbers (the best one tried: {kind}, "
        f"learning rate {head.settings.learning_rate:g}), so no head is written. With a hidden layer lower "
        "train_head.learning_rate in params.yaml; of a linear head the features are at fault: choose another backbone."
    )


def learning_curve(
    comparison: Comparison, config: TrainHead, *, seed: int, watch: Callable[[str], Callable[[int], None]]
) -> dict[int, np.ndarray]:
    """Return which val images the best settings name rightly with fewer training photos, by their number.

    They are shares of the photos that settings were compared on; and these, where they are not all that there are.
    """
    best, curve = comparison.ranked[0], {}
    for share in sorted(config.learning_curve):
        rows, on_epoch = comparison.rows.share(share), watch(f"{share:.0%}")
        (trained,) = train_heads(rows, [best.settings], config, seed=seed, on_epoch=on_epoch)
        curve[rows.photos] = trained.right
    if comparison.is_sampled:
        curve[comparison.rows.photos] = best.right
    return curve


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
    """Return what `write_leaderboard` wrote."""
    return read_csv(path, _LEADERBOARD)
