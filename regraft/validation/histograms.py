"""Histograms of the photos' statistics, now and in production: the numbers behind the report's charts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pandas import DataFrame

Limits = Mapping[str, tuple[float | None, float | None]]
_BINS = 30


def histograms(now: DataFrame, former: DataFrame | None, limits: Limits) -> dict[str, dict[str, Any]]:
    """Count the used photos per bin of each statistic.

    Args:
        now: rows with the columns that `limits` names.
        former: the same of the photos that the model in production was trained on; None where there are none.
        limits: lowest and highest value that a photo should have, by column; None where there is no such limit.

    Returns:
        By column, JSON-able: `edges` of the bins, one more than there are bins, or none without any photo; the counts
        `now` and `in_production`, the latter None without `former`; `is_logarithmic`, how the edges are spaced;
        `lowest` and `highest`, the limits.
    """
    return {
        name: _histogram(now[name], None if former is None else former[name], lowest, highest)
        for name, (lowest, highest) in limits.items()
    }


def _histogram(now: Any, former: Any, lowest: float | None, highest: float | None) -> dict[str, Any]:
    now, before = (np.asarray([] if values is None else values.dropna(), float) for values in (now, former))
    both = np.concatenate([now, before])
    edges, is_logarithmic = (np.array([]), False) if len(both) == 0 else _edges(both.min(), both.max())
    return {
        "edges": edges.tolist(),
        "now": _counts(now, edges),
        "in_production": None if former is None else _counts(before, edges),
        "is_logarithmic": is_logarithmic,
        "lowest": lowest,
        "highest": highest,
    }


def _edges(smallest: float, largest: float) -> tuple[np.ndarray, bool]:
    # What ranges over powers of ten is shown on a logarithmic scale.
    is_logarithmic = bool(smallest > 0 and largest / smallest > 100)
    margin = 0.1 * abs(smallest) + 0.1 if smallest == largest else 0  # photos of one size are one bar in the middle
    space = np.geomspace if is_logarithmic else np.linspace
    return space(smallest - margin, largest + margin, _BINS + 1), is_logarithmic


def _counts(values: np.ndarray, edges: np.ndarray) -> list[int]:
    return np.histogram(values, edges)[0].tolist() if len(edges) else []
