"""Figures by which trainings are judged, learning curves, and the weight of rare classes in a loss."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from regraft.core.config import ClassWeight
from regraft.core.csv_files import read_csv, write_csv

_CURVE = {"epoch": int, "train_loss": float, "val_log_loss": float, "val_accuracy": float}
_CURVE |= {"val_balanced_log_loss": float, "val_macro_recall": float}


@dataclass(frozen=True, slots=True)
class Score:
    """The figures of a model on a split. Log losses are mean cross-entropies with the natural logarithm."""

    accuracy: float
    log_loss: float
    macro_recall: float  # the mean of the recalls of all classes that the split has
    balanced_log_loss: float  # the mean of the log losses of the images of each of these classes


@dataclass(frozen=True, slots=True)
class Objective:
    """The two figures of a `Score` that a training is judged by, as names of its fields."""

    share: Literal["accuracy", "macro_recall"]  # higher is better
    loss: Literal["log_loss", "balanced_log_loss"]  # lower is better

    def loss_of(self, score: Score) -> float:
        """Return the loss of a score, 0 or more."""
        return getattr(score, self.loss)

    def words(self, score: Score) -> str:
        """Return both with their names: accuracy 0.931 (log loss 0.204)."""
        share = getattr(score, self.share)
        return f"{in_words(self.share)} {share:.3f} ({in_words(self.loss)} {self.loss_of(score):.3f})"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training images; epoch 0 is before the first."""

    epoch: int
    train_loss: float | None
    val: Score


def in_words(name: str) -> str:
    """Return the name of a figure as people read it."""
    return name.replace("_", " ")


def score(class_indices: np.ndarray, probabilities: np.ndarray) -> Score:
    """Return the figures of one split."""
    is_right = probabilities.argmax(axis=1) == class_indices
    return score_of(class_indices, log_losses(class_indices, probabilities), is_right)


def score_of(class_indices: np.ndarray, losses: np.ndarray, is_right: np.ndarray) -> Score:
    """Return the figures of one split from the log loss of each image and whether its class is right."""
    return Score(
        accuracy=float(np.mean(is_right)),
        log_loss=float(losses.mean()),
        macro_recall=_mean_over_classes(class_indices, is_right),
        balanced_log_loss=_mean_over_classes(class_indices, losses),
    )


def log_losses(class_indices: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the log loss of each image, float64, shape (n,); arguments as of `score`."""
    # 1e-7 is the smallest probability that float32 softmax outputs are clipped to in Keras; log(0) would be infinite.
    true = np.clip(probabilities[np.arange(len(class_indices)), class_indices].astype(np.float64), 1e-7, 1)
    return -np.log(true)


def _mean_over_classes(class_indices: np.ndarray, values: np.ndarray) -> float:
    """Return the mean over classes of the mean value of their images; a class without images does not count."""
    counts = np.bincount(class_indices)
    return float((np.bincount(class_indices, values)[counts > 0] / counts[counts > 0]).mean())


def class_weights(class_weight: ClassWeight, class_indices: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the weight of each class in the loss, float32, shape (num_classes,); over the images they average to 1.

    balanced: images / (num_classes * images of the class), as in scikit-learn.
    """
    counts = np.bincount(class_indices, minlength=num_classes)
    if class_weight == "balanced":
        return (len(class_indices) / (num_classes * counts)).astype(np.float32)
    return np.ones(num_classes, np.float32)


def class_prior(class_weight: ClassWeight, class_indices: np.ndarray, num_classes: int) -> np.ndarray | None:
    """Return the factors of probabilities while training, float32, shape (num_classes,), positive; or None.

    logit_adjustment: the shares of the classes, so that the network without them treats all classes as equally likely.
    Menon et al., "Long-tail learning via logit adjustment", 2021, with tau = 1.
    """
    if class_weight != "logit_adjustment":
        return None
    return (np.bincount(class_indices, minlength=num_classes) / len(class_indices)).astype(np.float32)


def objective_of(class_weight: ClassWeight) -> Objective:
    """Return the figures that sweeps and blending are judged by.

    Help for rare classes asks for means over classes: by accuracy a network that never predicts a rare class would win.
    """
    if class_weight == "none":
        return Objective("accuracy", "log_loss")
    return Objective("macro_recall", "balanced_log_loss")


def write_curve(path: Path, curve: list[Epoch]) -> None:
    """Write a learning curve as CSV, a row per epoch; a phase that was off has none."""
    rows = [
        {"epoch": epoch.epoch, "train_loss": epoch.train_loss}
        | {f"val_{name}": value for name, value in asdict(epoch.val).items()}
        for epoch in curve
    ]
    write_csv(path, pd.DataFrame(rows, columns=list(_CURVE)))


def read_curve(path: Path) -> pd.DataFrame:
    """Return the table that `write_curve` wrote."""
    return read_csv(path, _CURVE)
