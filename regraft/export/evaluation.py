"""The shipped file on the test split: figures of all photos, of classes and of slices, calibration, and its promise.

A part has few photos, and there are many parts: some look bad by chance. So every figure has its interval, the worst
part is the one whose interval ends lowest, and a slice is marked only if all comparisons together allow it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.csv_files import read_csv, write_csv
from regraft.core.files import reading
from regraft.core.statistics import Interval, holm, wilson
from regraft.export.calibration import TEMPERATURE, as_learnt, logits_of, softmax
from regraft.photos.dataset import Dataset
from regraft.photos.groups import first_of_each, independent_images
from regraft.serving.thresholds import Promise
from regraft.training.metrics import log_losses

WORSE, BETTER, FEW = "worse than the rest", "better than the rest", "few photos"
_ENOUGH = 10  # independent photos of a part; fewer leave an interval of 50 points or more at an accuracy of one half
_SIGNIFICANCE = 0.05  # of all comparisons of slices together
_DRAWS = 200  # of photos whose answers are right as often as their probabilities say
_CLASSES = {"class_name": str, "images": int, "recall": float, "low": float, "high": float, "note": str}
_SLICES = {"slice": str, "value": str, "images": int, "accuracy": float, "low": float, "high": float}
_SLICES |= {"p": float, "note": str}
_PREDICTIONS = {"path": str, "actual": str, "predicted": str, "confidence": float}
RELIABILITY = {"when": str, "images": int, "confidence": float, "accuracy": float, "low": float, "high": float}
RISK_COVERAGE: dict[str, Any] = {"threshold": float, "coverage": float, "precision": float}


def share_right(right: np.ndarray, groups: np.ndarray, weights: np.ndarray | None = None) -> Interval:
    """Return the share of right answers with its 95 % interval (Wilson's), of as many photos as are independent."""
    if not len(right):
        return wilson(0, 0)
    share, count = float(np.average(right, weights=weights)), max(1, independent_images(groups, weights))
    interval = wilson(round(share * count), count)
    return Interval(share, min(share, interval.low), max(share, interval.high))


def brier_score(class_indices: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the mean squared distance of the probabilities from the truth, summed over classes: 0 to 2.

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
    """Return the distance of confidence and accuracy: 0 is calibrated, 1 is the worst.

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
    """Return the mean expected calibration error of calibrated probabilities on as many photos.

    It is not 0, because the accuracy of few photos in a bin scatters: see Roelofs et al., "Mitigating bias in
    calibration error estimation", 2022. In each draw every photo is right with its own largest probability.
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
    say little more than one of them.

    Args:
        class_indices: the true classes, shape (n,).
        probabilities: shape (n, num_classes), rows sum to 1.
        groups: from `regraft.photos.groups.groups_of`, shape (n,).
        bins: of the expected calibration error.
        weights: of each image, shape (n,), where class frequencies differ in use; None: the same.
    """
    from sklearn.metrics import f1_score, top_k_accuracy_score

    predicted, num_classes = probabilities.argmax(axis=1), probabilities.shape[1]
    accuracy = share_right(predicted == class_indices, groups, weights)
    report: dict[str, float | int] = {"images": len(class_indices)}
    report["independent_images"] = independent_images(groups, weights)
    report |= {"accuracy": accuracy.value, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high}
    if num_classes > 5:  # else the right one is always among five
        labels = np.arange(num_classes)
        top5 = top_k_accuracy_score(class_indices, probabilities, k=5, labels=labels, sample_weight=weights)
        report["top5_accuracy"] = float(top5)
    # A class without images in this split cannot be measured and must not count as 0.
    present, named = np.unique(class_indices), {"average": "macro", "sample_weight": weights, "zero_division": 0.0}
    return report | {
        "macro_f1": float(f1_score(class_indices, predicted, labels=present, **named)),
        "log_loss": float(np.average(log_losses(class_indices, probabilities), weights=weights)),
        "brier": brier_score(class_indices, probabilities, weights),
        "ece": expected_calibration_error(class_indices, probabilities, bins=bins, weights=weights),
        "ece_by_chance": ece_by_chance(probabilities, bins=bins, weights=weights),
    }


def class_table(
    class_names: list[str], class_indices: np.ndarray, right: np.ndarray, groups: np.ndarray
) -> pd.DataFrame:
    """Return the recall of each class with its interval, the worst first; a class without photos is at the end.

    Returns:
        Columns class_name, images, recall, low, high, and note, which marks classes of few photos.
    """
    rows = []
    for index, name in enumerate(class_names):
        part = class_indices == index
        note = FEW if independent_images(groups[part]) < _ENOUGH else ""
        rows.append([name, int(part.sum()), *astuple(share_right(right[part], groups[part])), note])
    return _worst_first(pd.DataFrame(rows, columns=list(_CLASSES)))


def slice_table(slices: pd.DataFrame, right: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    """Return the accuracy on each value of each slice with its interval, the worst first.

    A value is marked if its answers are right more or less often than the rest: Fisher's exact test (1935) on one photo
    per group. Over all values together a mark is wrong in at most 5 % of runs (Holm). Values of few photos are not
    tested, since nothing could be shown of them.

    Args:
        slices: a column of texts per slice, shape (n, number of slices); missing where a photo has no value.
        right: whether each answer is right, bool, shape (n,).
        groups: from `groups_of`, shape (n,).

    Returns:
        Columns slice, value (empty for photos that have none), images, accuracy, low, high, p after Holm (missing where
        it was not tested) and note.
    """
    from scipy.stats import fisher_exact

    independent, rows = first_of_each(groups), []
    everyone = _counts(right[independent])
    for name, value, part in _parts(slices):
        inside = _counts(right[part][independent[part]])
        rest = everyone - inside
        is_tested = min(inside.sum(), rest.sum()) >= _ENOUGH
        p = float(fisher_exact([inside, rest])[1]) if is_tested else float("nan")  # two-sided
        is_better = inside[0] * everyone[1] > inside[1] * everyone[0]
        note = FEW if inside.sum() < _ENOUGH else BETTER if is_better else WORSE
        rows.append([name, value, len(part), *astuple(share_right(right[part], groups[part])), p, note])
    table = pd.DataFrame(rows, columns=list(_SLICES))
    tested = table.p.notna()
    table.loc[tested, "p"] = holm(table.p[tested].to_numpy(float))
    table.loc[(table.note != FEW) & ~(table.p <= _SIGNIFICANCE), "note"] = ""
    return _worst_first(table)


def _parts(slices: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield each value of each slice with the positions of its photos."""
    for name in slices.columns:
        values = slices[name].fillna("").astype(str).reset_index(drop=True)
        for value, part in values.groupby(values).indices.items():
            yield str(name), str(value), part


def _counts(right: np.ndarray) -> np.ndarray:
    """Return the numbers of right and of wrong answers."""
    return np.array([right.sum(), (~right).sum()], np.int64)


def _worst_first(table: pd.DataFrame) -> pd.DataFrame:
    """Order a table by the upper ends of intervals, so that a part with few photos is not the worst one by chance."""
    return table.sort_values(["high", "images"], ascending=[True, False], kind="stable").reset_index(drop=True)


def write_parts(path: Path, table: pd.DataFrame) -> None:
    """Write the result of `class_table` or `slice_table` as CSV."""
    write_csv(path, table.round(4))


def read_classes(path: Path) -> pd.DataFrame:
    """Return the table of classes that `write_parts` wrote."""
    return read_csv(path, _CLASSES)


def read_slices(path: Path) -> pd.DataFrame:
    """Return the table of slices that `write_parts` wrote."""
    return read_csv(path, _SLICES)


def write_predictions(path: Path, test: Dataset, probabilities: np.ndarray) -> None:
    """Write the prediction for each image as CSV, ordered by path; probabilities have the order of `test`."""
    table = pd.DataFrame(
        {
            "path": test.rows.path,
            "actual": test.rows.class_name,
            "predicted": [test.class_names[index] for index in probabilities.argmax(axis=1)],
            "confidence": probabilities.max(axis=1).round(4),
        }
    )
    write_csv(path, table.sort_values("path"))


def read_predictions(path: Path) -> pd.DataFrame:
    """Return the table that `write_predictions` wrote."""
    return read_csv(path, _PREDICTIONS)


def write_confusion(path: Path, test: Dataset, probabilities: np.ndarray) -> None:
    """Write the confusion matrix as CSV: a row per true class, a column per predicted one."""
    from sklearn.metrics import confusion_matrix

    names = test.class_names
    matrix = confusion_matrix(test.rows.class_index, probabilities.argmax(axis=1), labels=range(len(names)))
    table = pd.DataFrame(matrix, columns=names)
    table.insert(0, "actual", names, allow_duplicates=True)
    write_csv(path, table)


def read_confusion(path: Path) -> pd.DataFrame:
    """Return the matrix that `write_confusion` wrote: true classes as the index, a column per predicted one."""
    table = read_csv(path, {"actual": str}, others=int)
    with reading(path, "a row and a column per class"):
        if table.shape[1] != len(table) + 1:
            raise ValueError(f"{len(table)} rows and {table.shape[1] - 1} columns")
    return table.set_index("actual")


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
    """Return the figures before and after calibration as a report."""

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
    """Return how many photos are answered, and how many of them rightly."""
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
