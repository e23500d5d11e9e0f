"""What calibration did: how often a file is right where it says so many percent, before and after, on test."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.csv_files import read_csv, write_csv
from regraft.export.calibration import logits_of
from regraft.export.finishing import SHIFT, TEMPERATURE
from regraft.intervals import Interval, wilson
from regraft.training.metrics import bins_of, brier_score, ece_by_chance, expected_calibration_error, score

_COLUMNS = {"when": str, "images": int, "confidence": float, "accuracy": float, "low": float, "high": float}


@dataclass(frozen=True, slots=True)
class Calibrated:
    """How good probabilities are as such."""

    log_loss: float
    brier: float
    ece: float
    ece_by_chance: float  # what a calibrated model has on so few photos

    @classmethod
    def of(cls, class_indices: np.ndarray, probabilities: np.ndarray, bins: int) -> "Calibrated":
        """Return the figures of some photos: true classes, shape (n,), and probabilities, shape (n, num_classes)."""
        return cls(
            score(class_indices, probabilities).log_loss,
            brier_score(class_indices, probabilities),
            expected_calibration_error(class_indices, probabilities, bins=bins),
            ece_by_chance(probabilities, bins=bins),
        )


@dataclass(frozen=True, slots=True)
class Novel:
    """How many photos of known classes a file calls novel: false alarms, of which 1 % are expected."""

    images: int
    share: Interval

    @classmethod
    def of(cls, novelty: np.ndarray, above: float) -> "Novel":
        """Return it from the novelty of each photo, shape (n,), and the threshold of the file."""
        return cls(len(novelty), wilson(int((novelty > above).sum()), len(novelty)))


def as_trained(probabilities: np.ndarray, metadata: Mapping[str, str]) -> np.ndarray:
    """Return what a file would say without its temperature and shift: float64, shape (n, num_classes).

    Args:
        probabilities: of the file, shape (n, num_classes).
        metadata: of the file.
    """
    shift = np.array(json.loads(metadata[SHIFT])) if SHIFT in metadata else 0.0
    logits = (logits_of(probabilities) - shift) * float(metadata.get(TEMPERATURE, "1"))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def calibration_report(
    class_indices: np.ndarray, probabilities: np.ndarray, metadata: Mapping[str, str], *, bins: int
) -> dict[str, Any]:
    """Return the figures before and after as a report."""
    before = Calibrated.of(class_indices, as_trained(probabilities, metadata), bins)
    return {"before": asdict(before), "after": asdict(Calibrated.of(class_indices, probabilities, bins))}


def reliability(
    class_indices: np.ndarray, probabilities: np.ndarray, metadata: Mapping[str, str], *, bins: int
) -> pd.DataFrame:
    """Return a row per bin that has photos, before and after: mean confidence and accuracy with its interval.

    Source: the reliability diagram of Niculescu-Mizil and Caruana, "Predicting good probabilities with supervised
    learning", 2005.
    """
    rows = []
    for when, each in (("before", as_trained(probabilities, metadata)), ("after", probabilities)):
        confidence, right = each.max(axis=1).astype(np.float64), each.argmax(axis=1) == class_indices
        bin_of = bins_of(confidence, bins)
        for number in np.unique(bin_of):
            inside = bin_of == number
            share = wilson(int(right[inside].sum()), int(inside.sum()))
            rows.append((when, int(inside.sum()), float(confidence[inside].mean()), share.value, share.low, share.high))
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def write_reliability(path: Path, table: pd.DataFrame) -> None:
    """Write what `reliability` returned."""
    write_csv(path, table)


def read_reliability(path: Path) -> pd.DataFrame:
    """Return what `write_reliability` wrote."""
    return read_csv(path, _COLUMNS)
