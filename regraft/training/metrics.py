"""Figures that say how good probabilities are."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from regraft.photos.groups import independent_images
from regraft.training.parts import share_right

_DRAWS = 200  # of photos that are right as often as they are said to be


@dataclass(frozen=True, slots=True)
class Score:
    """How a model does on a split. Log losses are mean cross-entropies with the natural logarithm."""

    accuracy: float
    log_loss: float
    macro_recall: float  # the mean of the recalls of all classes that the split has
    balanced_log_loss: float  # the mean of the log losses of the images of each of these classes


@dataclass(frozen=True, slots=True)
class Objective:
    """The two figures of a `Score` that a training is judged by, as names of its fields."""

    share: Literal["accuracy", "macro_recall"]  # higher is better
    loss: Literal["log_loss", "balanced_log_loss"]  # lower is better

    def share_of(self, score: Score) -> float:
        """Return the share of a score, 0 to 1."""
        return getattr(score, self.share)

    def loss_of(self, score: Score) -> float:
        """Return the loss of a score, 0 or more."""
        return getattr(score, self.loss)

    def words(self, score: Score) -> str:
        """Return both with their names: accuracy 0.931 (log loss 0.204)."""
        return f"{in_words(self.share)} {self.share_of(score):.3f} ({in_words(self.loss)} {self.loss_of(score):.3f})"


def in_words(name: str) -> str:
    """Return the name of a figure as people read it."""
    return name.replace("_", " ")


def score(class_indices: np.ndarray, probabilities: np.ndarray) -> Score:
    """Return the figures of one split.

    Args:
        class_indices: the true classes, shape (n,).
        probabilities: shape (n, num_classes), rows sum to 1.
    """
    is_right = probabilities.argmax(axis=1) == class_indices
    return score_of(class_indices, log_losses(class_indices, probabilities), is_right)


def score_of(class_indices: np.ndarray, losses: np.ndarray, is_right: np.ndarray) -> Score:
    """Return the figures of one split from the log loss of each image, and whether it is named rightly."""
    return Score(
        accuracy=float(np.mean(is_right)),
        log_loss=float(losses.mean()),
        macro_recall=mean_over_classes(class_indices, is_right),
        balanced_log_loss=mean_over_classes(class_indices, losses),
    )


def log_losses(class_indices: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the log loss of each image, float64, shape (n,); arguments as of `score`."""
    # 1e-7 is the smallest probability that float32 softmax outputs are clipped to in Keras; log(0) would be infinite.
    true = np.clip(probabilities[np.arange(len(class_indices)), class_indices].astype(np.float64), 1e-7, 1)
    return -np.log(true)


def mean_over_classes(class_indices: np.ndarray, values: np.ndarray) -> float:
    """Return the mean over classes of the mean value of their images; a class without images is left out."""
    counts = np.bincount(class_indices)
    return float((np.bincount(class_indices, values)[counts > 0] / counts[counts > 0]).mean())


def brier_score(class_indices: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the mean squared distance of the probabilities from the truth, summed over classes: 0 to 2.

    `weights` are what each image counts for, shape (n,), here and below; None: all the same.

    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950.
    """
    from sklearn.metrics import brier_score_loss

    labels = np.arange(probabilities.shape[1])
    return float(
        brier_score_loss(class_indices, probabilities, sample_weight=weights, labels=labels, scale_by_half=False)
    )


def expected_calibration_error(
    class_indices: np.ndarray, probabilities: np.ndarray, *, bins: int, weights: np.ndarray | None = None
) -> float:
    """Return how far confidence and accuracy lie apart: 0 is calibrated, 1 is as wrong as can be.

    ECE = sum over bins b of (n_b / n) * |accuracy(b) - confidence(b)|, with bins of equal width over the largest
    probability. Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    return _gap(confidence, probabilities.argmax(axis=1) == class_indices, bins, weights)


def bins_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin of each confidence, 0 to bins - 1, of equal width; a border belongs to the bin below it."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def _gap(confidence: np.ndarray, right: np.ndarray, bins: int, weights: np.ndarray | None) -> float:
    weights = np.ones(len(confidence)) if weights is None else weights
    gap = np.bincount(bins_of(confidence, bins), (right - confidence) * weights, minlength=bins)
    return float(np.abs(gap).sum() / weights.sum())


def ece_by_chance(probabilities: np.ndarray, *, bins: int, weights: np.ndarray | None = None) -> float:
    """Return the expected calibration error that calibrated probabilities have on so few photos, on average.

    It is not 0, because the accuracy of few photos in a bin scatters. Each draw lets every photo be right with its own
    largest probability; only what the error of a model exceeds this by is the model's.

    Source: Roelofs et al., "Mitigating bias in calibration error estimation", 2022, on the size of that bias.
    """
    random, confidence = np.random.default_rng(0), probabilities.max(axis=1).astype(np.float64)
    gaps = [_gap(confidence, random.random(len(confidence)) < confidence, bins, weights) for _ in range(_DRAWS)]
    return float(np.mean(gaps))


def classification_report(
    class_indices: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    *,
    bins: int,
    weights: np.ndarray | None = None,
) -> dict[str, float | int]:
    """Return the figures of one split; top5_accuracy only where there are more than five classes.

    All figures count photos. The interval of accuracy is that of `independent_images` photos, since near-duplicates
    tell little more than one of them does.

    Args:
        class_indices: the true classes, shape (n,).
        probabilities: shape (n, num_classes), rows sum to 1.
        groups: from `regraft.photos.groups.groups_of`, shape (n,).
        bins: of the expected calibration error.
        weights: what each image counts for, shape (n,), where classes are more or less frequent in use; None: the same.
    """
    from sklearn.metrics import f1_score, top_k_accuracy_score

    num_classes = probabilities.shape[1]
    labels = np.arange(num_classes)
    accuracy = share_right(probabilities.argmax(axis=1) == class_indices, groups, weights)
    independent = independent_images(groups, weights)
    report: dict[str, float | int] = {"images": len(class_indices), "independent_images": independent}
    report |= {"accuracy": accuracy.value, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high}
    if num_classes > 5:  # else the right one is always among five
        top5 = top_k_accuracy_score(class_indices, probabilities, k=5, labels=labels, sample_weight=weights)
        report["top5_accuracy"] = float(top5)
    # A small class may have no image in this split; it cannot be measured and must not count as 0.
    present = np.unique(class_indices)
    macro_f1 = f1_score(
        class_indices,
        probabilities.argmax(axis=1),
        labels=present,
        average="macro",
        sample_weight=weights,
        zero_division=0.0,
    )
    return report | {
        "macro_f1": float(macro_f1),
        "log_loss": float(np.average(log_losses(class_indices, probabilities), weights=weights)),
        "brier": brier_score(class_indices, probabilities, weights),
        "ece": expected_calibration_error(class_indices, probabilities, bins=bins, weights=weights),
        "ece_by_chance": ece_by_chance(probabilities, bins=bins, weights=weights),
    }
