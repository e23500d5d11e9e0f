"""Figures that say how good probabilities are."""

from dataclasses import dataclass
from math import comb

import numpy as np


@dataclass(frozen=True, slots=True)
class Score:
    """How a model does on a split while it is trained: accuracy first, cross-entropy where accuracies are equal."""

    accuracy: float
    log_loss: float

    def is_better_than(self, other: "Score") -> bool:
        """Whether this score beats `other`."""
        return (self.accuracy, -self.log_loss) > (other.accuracy, -other.log_loss)


def score(class_indices: np.ndarray, probabilities: np.ndarray) -> Score:
    """Return accuracy and mean cross-entropy (natural logarithm).

    Args:
        class_indices: the true classes, shape (n,).
        probabilities: shape (n, num_classes), rows sum to 1.
    """
    # 1e-7 is the smallest probability that float32 softmax outputs are clipped to in Keras; log(0) would be infinite.
    true = np.clip(probabilities[np.arange(len(class_indices)), class_indices].astype(np.float64), 1e-7, 1)
    accuracy = float(np.mean(probabilities.argmax(axis=1) == class_indices))
    return Score(accuracy, float(-np.log(true).mean()))


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two classifiers on the same images: on how many only one of them is right, and how likely that is by chance."""

    only_before: int
    only_after: int
    p: float


def mcnemar_test(before: np.ndarray, after: np.ndarray) -> PairedTest:
    """Test whether a second classifier is right more often than a first one: McNemar's test, exact and one-sided.

    Images on which both are right, or both wrong, say nothing. If neither classifier were better, each of the other n
    would favour either with probability 1/2, so p = sum of binomial(n, k) / 2^n over k from `only_after` to n.
    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12,
    1947; its exact form as in Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13:91, 2013.

    Args:
        before: whether the first one is right, bool, shape (n,).
        after: the same of the second one.
    """
    only_before, only_after = int((before & ~after).sum()), int((after & ~before).sum())
    count = only_before + only_after
    ways = sum(comb(count, right) for right in range(only_after, count + 1))
    return PairedTest(only_before, only_after, ways / 2**count)


def expected_calibration_error(class_indices: np.ndarray, probabilities: np.ndarray, *, bins: int) -> float:
    """Return how far confidence and accuracy lie apart: 0 is calibrated, 1 is as wrong as can be.

    ECE = sum over bins b of (n_b / n) * |accuracy(b) - confidence(b)|, with bins of equal width over the largest
    probability. Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == class_indices
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def accuracy_with_interval(right: int, images: int) -> dict[str, float]:
    """Return an accuracy and its 95 % confidence interval by Wilson's method, which holds near 0 and 1 too.

    Args:
        right: images whose class was named.
        images: of how many, at least 1.

    Returns:
        accuracy, accuracy_low and accuracy_high, each 0 to 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22, 1927.
    """
    from scipy.stats import binomtest

    interval = binomtest(right, images).proportion_ci(confidence_level=0.95, method="wilson")
    return {"accuracy": right / images, "accuracy_low": float(interval.low), "accuracy_high": float(interval.high)}


def classification_report(class_indices: np.ndarray, probabilities: np.ndarray, *, bins: int) -> dict[str, float | int]:
    """Return the figures of one split; top5_accuracy only where there are more than five classes.

    Args:
        class_indices: the true classes, shape (n,).
        probabilities: shape (n, num_classes), rows sum to 1.
        bins: of the expected calibration error.
    """
    from sklearn.metrics import f1_score, top_k_accuracy_score

    num_classes = probabilities.shape[1]
    labels = np.arange(num_classes)
    right = int((probabilities.argmax(axis=1) == class_indices).sum())
    report = {"images": len(class_indices), **accuracy_with_interval(right, len(class_indices))}
    if num_classes > 5:  # else the right one is always among five
        report["top5_accuracy"] = float(top_k_accuracy_score(class_indices, probabilities, k=5, labels=labels))
    # A small class may have no image in this split; it cannot be measured and must not count as 0.
    present = np.unique(class_indices)
    macro_f1 = f1_score(class_indices, probabilities.argmax(axis=1), labels=present, average="macro", zero_division=0.0)
    return report | {
        "macro_f1": float(macro_f1),
        "log_loss": score(class_indices, probabilities).log_loss,
        "ece": expected_calibration_error(class_indices, probabilities, bins=bins),
    }
