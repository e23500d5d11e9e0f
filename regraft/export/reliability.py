"""The file on the test split: calibration before and after, novelty of known classes, and the promised precision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.statistics import Interval, wilson
from regraft.export.calibration import TEMPERATURE, as_learnt, logits_of, softmax
from regraft.serving.promise import Promise
from regraft.training.evaluation import bins_of, brier_score, ece_by_chance, expected_calibration_error, share_right
from regraft.training.metrics import log_losses

RELIABILITY = {"when": str, "images": int, "confidence": float, "accuracy": float, "low": float, "high": float}
RISK_COVERAGE: dict[str, Any] = {"threshold": float, "coverage": float, "precision": float}


@dataclass(frozen=True, slots=True)
class Novel:
    """How many photos of known classes a file calls novel: false alarms."""

    images: int
    share: Interval
    expected: float | None  # as the file says

    @classmethod
    def of(cls, novelty: np.ndarray, above: float, expected: float | None) -> "Novel":
        """Return it from the novelty of each photo, shape (n,), and the threshold of the file."""
        return cls(len(novelty), wilson(int((novelty > above).sum()), len(novelty)), expected)


def as_trained(probabilities: np.ndarray, metadata: Mapping[str, str]) -> np.ndarray:
    """Return the probabilities of a file without its temperature and shift: float64, shape (n, num_classes)."""
    temperature = float(metadata.get(TEMPERATURE, "1"))
    return softmax(logits_of(as_learnt(probabilities, metadata)) * temperature)


def calibration_report(
    class_indices: np.ndarray,
    probabilities: np.ndarray,
    metadata: Mapping[str, str],
    *,
    bins: int,
    weights: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the figures before and after calibration as a report.

    Args:
        class_indices: true classes, shape (n,).
        probabilities: of the file, shape (n, num_classes).
        metadata: of the file.
        bins: of the expected calibration error.
        weights: those of the photos in use, for after.
    """

    def figures(probabilities: np.ndarray, weights: np.ndarray | None) -> dict[str, float]:
        return {
            "log_loss": float(np.average(log_losses(class_indices, probabilities), weights=weights)),
            "brier": brier_score(class_indices, probabilities, weights),
            "ece": expected_calibration_error(class_indices, probabilities, bins=bins, weights=weights),
            "ece_by_chance": ece_by_chance(probabilities, bins=bins, weights=weights),  # a calibrated model's
        }

    return {"before": figures(as_trained(probabilities, metadata), None), "after": figures(probabilities, weights)}


def reliability(
    class_indices: np.ndarray,
    probabilities: np.ndarray,
    metadata: Mapping[str, str],
    *,
    bins: int,
    weights: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return a row per bin that has photos, before and after: mean confidence and accuracy with its interval.

    Arguments are those of `calibration_report`.

    Source: the reliability diagram of Niculescu-Mizil and Caruana, "Predicting good probabilities with supervised
    learning", 2005.
    """
    rows = []
    even, alone = np.ones(len(class_indices)), np.arange(len(class_indices))
    for when, each, weight in (
        ("before", as_trained(probabilities, metadata), even),
        ("after", probabilities, even if weights is None else weights),
    ):
        confidence, right = each.max(axis=1).astype(np.float64), each.argmax(axis=1) == class_indices
        bin_of = bins_of(confidence, bins)
        for number in np.unique(bin_of):
            inside = bin_of == number
            share = share_right(right[inside], alone[inside], weight[inside])
            mean = float(np.average(confidence[inside], weights=weight[inside]))
            rows.append((when, int(inside.sum()), mean, share.value, share.low, share.high))
    return pd.DataFrame(rows, columns=list(RELIABILITY))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a promise on photos that nothing was chosen on."""

    images: int
    answered: int
    coverage: Interval  # share of photos that are answered, with its 95 % interval
    precision: Interval | None  # share of right answers among the answers; None where there are none
    words: str


def outcome_of(
    promise: Promise | None,
    right: np.ndarray,
    largest: np.ndarray,
    groups: np.ndarray,
    weights: np.ndarray | None = None,
) -> Outcome:
    """Return how many photos are answered, and how many of them rightly.

    Args:
        promise: of the file; None where it answers everything.
        right: whether each answer is right, bool, shape (n,).
        largest: the largest probability of each photo, shape (n,).
        groups: from `regraft.photos.groups.groups_of`, shape (n,).
        weights: from `regraft.export.calibration.weights_for_use`: the promise is about photos in use.
    """
    answered = largest >= (promise.abstain_below if promise else 0)
    count, coverage = int(answered.sum()), share_right(answered, groups, weights)
    if count == 0:
        return Outcome(len(right), 0, coverage, None, f"None of {len(right)} test photos is answered.")
    precision = share_right(right[answered], groups[answered], None if weights is None else weights[answered])
    words = f"Of {len(right)} test photos {coverage} are answered, and {precision} of these rightly."
    if weights is not None:
        words += " Each counts as much as its class is more frequent in use (export_onnx.class_shares)."
    if promise and precision.high < promise.target_precision:
        words += " That is less than was promised: test photos differ from those of val, on which it was fixed."
    return Outcome(len(right), count, coverage, precision, words)


def risk_coverage(
    right: np.ndarray, largest: np.ndarray, weights: np.ndarray | None = None, *, points: int = 200
) -> pd.DataFrame:
    """Return what a model's answers come to at each threshold: threshold, coverage, precision; the strictest first.

    Args:
        right: whether each answer is right, bool, shape (n,).
        largest: the largest probability of each photo, shape (n,).
        weights: as of `outcome_of`.
        points: rows, at most.

    Source: El-Yaniv and Wiener, "On the foundations of noise-free selective classification", JMLR 11, 2010.
    """
    order = np.argsort(-largest, kind="stable")
    weight = np.ones(len(right)) if weights is None else weights[order]
    ordered, right_of, answered = largest[order], np.cumsum(right[order] * weight), np.cumsum(weight)
    last = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True))  # of equal ones all are answered
    last = last[np.unique(np.linspace(0, len(last) - 1, points).astype(int))]
    return pd.DataFrame(
        {
            "threshold": ordered[last],
            "coverage": answered[last] / answered[-1],
            "precision": right_of[last] / answered[last],
        }
    )
