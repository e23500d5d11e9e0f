"""Heads that tests train on a few features."""

import numpy as np

from regraft.core.config import TrainHead
from regraft.features.table import Features
from regraft.training.heads import Rows, TrainedHead, train_heads
from regraft.training.network_file import HeadSettings

LINEAR = HeadSettings(0, "relu", "lbfgs", 0.2, 0.0, 0.02, 0.05)
CLASSIC = HeadSettings(1024, "relu", "rmsprop", 0.0, 0.001, 0.0, 0.0)
CONFIG = TrainHead.model_validate(
    {"kind": "linear", "penalty": 0.02, "label_smoothing": 0.05, "class_weight": "none", "learning_curve": []}
)


def config(**values: object) -> TrainHead:
    """Return `CONFIG` with some settings changed."""
    return TrainHead.model_validate(CONFIG.model_dump() | values)


def train(
    features: Features, *sweep: HeadSettings, seed: int = 0, share: float = 1.0, **values: object
) -> list[TrainedHead]:
    """Train a head for each setting, as `CONFIG` says but for `values`, on a share of the photos."""
    rows = Rows.of(features).share(share)
    return train_heads(rows, sweep, config(**values).class_weight, seed=seed, on_epoch=lambda _: None)


def are_equal(one: TrainedHead, other: TrainedHead) -> bool:
    """Whether two heads have the same weights."""
    return len(one.weights) == len(other.weights) and all(map(np.array_equal, one.weights, other.weights))
