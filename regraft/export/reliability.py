"""What calibration did: how often a file is right where it says so many percent, before and after, on test."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.csv_files import read_csv, write_csv
from regraft.core.statistics import Interval, wilson
from regraft.export.calibration import with_temperature
from regraft.export.class_shares import as_learnt
from regraft.export.finishing import TEMPERATURE
from regraft.training.evaluation import bins_of, brier_score, ece_by_chance, expected_calibration_error, share_right
from regraft.training.metrics import log_losses

_COLUMNS = {"when": str, "images": int, "confidence": float, "accuracy": float, "low": float, "high": float}


@dataclass(frozen=True, slots=True)
class Calibrated:
    """How good probabilities are as such."""

    log_loss: float
    brier: float
    ece: float
    ece_by_chance: float  # what a calibrated model has on so few photos

    @classmethod
    def of(
        cls, class_indices: np.ndarray, probabilities: np.ndarray, bins: int, weights: np.ndarray | None = None
    ) -> "Calibrated":
        """Return the figures of some photos: true classes, probabilities (n, num_classes), what each counts for."""
        return cls(
            float(np.average(log_losses(class_indices, probabilities), weights=weights)),
            brier_score(class_indices, probabilities, weights),
            expected_calibration_error(class_indices, probabilities, bins=bins, weights=weights),
            ece_by_chance(probabilities, bins=bins, weights=weights),
        )


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
    """Return what a file would say without its temperature and shift: float64, shape (n, num_classes).

    Args:
        probabilities: of the file, shape (n, num_classes).
        metadata: of the file.
    """
    return with_temperature(as_learnt(probabilities, metadata), 1 / float(metadata.get(TEMPERATURE, "1")))


def calibration_report(
    class_indices: np.ndarray,
    probabilities: np.ndarray,
    metadata: Mapping[str, str],
    *,
    bins: int,
    weights: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the figures before and after as a report; `weights` are those of the photos in use, for after."""
    before = Calibrated.of(class_indices, as_trained(probabilities, metadata), bins)
    return {"before": asdict(before), "after": asdict(Calibrated.of(class_indices, probabilities, bins, weights))}


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
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def write_reliability(path: Path, table: pd.DataFrame) -> None:
    """Write what `reliability` returned."""
    write_csv(path, table)


def read_reliability(path: Path) -> pd.DataFrame:
    """Return what `write_reliability` wrote."""
    return read_csv(path, _COLUMNS)
