"""How accurate a model is on parts of the test split: on classes, and on slices that labels.csv names.

A part has few photos, and there are many parts: some look bad by chance. So every figure has its interval, the worst
part is the one whose interval ends lowest, and a slice is marked only if all comparisons together allow it.
"""

from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd

from regraft.core.csv_files import read_csv, write_csv
from regraft.core.statistics import Interval, holm, wilson
from regraft.photos.groups import first_of_each, independent_images

WORSE, BETTER, FEW = "worse than the rest", "better than the rest", "few photos"
_ENOUGH = 10  # independent photos of a part; fewer leave an interval of 50 points or more at an accuracy of one half
_SIGNIFICANCE = 0.05  # of all comparisons of slices together
_CLASSES = {"class_name": str, "images": int, "recall": float, "low": float, "high": float, "note": str}
_SLICES = {"slice": str, "value": str, "images": int, "accuracy": float, "low": float, "high": float}
_SLICES |= {"p": float, "note": str}


def share_right(right: np.ndarray, groups: np.ndarray, weights: np.ndarray | None = None) -> Interval:
    """Return the share of right answers with its 95 % interval (Wilson's), of as many photos as are independent.

    Args:
        right: whether each answer is right, bool, shape (n,).
        groups: from `groups_of`, shape (n,).
        weights: what each photo counts for, shape (n,); None: all the same.
    """
    if not len(right):
        return wilson(0, 0)
    share, count = float(np.average(right, weights=weights)), max(1, independent_images(groups, weights))
    interval = wilson(round(share * count), count)
    return Interval(share, min(share, interval.low), max(share, interval.high))


def class_table(
    class_names: list[str], class_indices: np.ndarray, right: np.ndarray, groups: np.ndarray
) -> pd.DataFrame:
    """Return the recall of each class with its interval, the worst first; a class without photos is at the end.

    Args:
        class_names: in the order of class_index.
        class_indices: the true classes, shape (n,).
        right: whether each answer is right, bool, shape (n,).
        groups: from `groups_of`, shape (n,).

    Returns:
        Columns class_name, images, recall, low, high, and note, which says where photos are few.
    """
    rows = []
    for index, name in enumerate(class_names):
        part = class_indices == index
        note = FEW if independent_images(groups[part]) < _ENOUGH else ""
        rows.append([name, int(part.sum()), *astuple(share_right(right[part], groups[part])), note])
    return _worst_first(pd.DataFrame(rows, columns=list(_CLASSES)))


def slice_table(slices: pd.DataFrame, right: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    """Return the accuracy on each value of each slice with its interval, the worst first.

    A value is marked if its photos are named rightly more or less often than the rest. The test is Fisher's exact one
    on one photo per group; over all values together a mark is wrong in at most 5 % of runs (Holm). Values with few
    photos are not tested, since nothing could be shown of them.

    Args:
        slices: a column of texts per slice, shape (n, number of slices); missing where a photo has no value.
        right: whether each answer is right, bool, shape (n,).
        groups: from `groups_of`, shape (n,).

    Returns:
        Columns slice, value (empty for photos that have none), images, accuracy, low, high, p after Holm (missing where
        it was not tested) and note.

    Source: Fisher, "The logic of inductive inference", Journal of the Royal Statistical Society 98, 1935.
    """
    independent, rows = first_of_each(groups), []
    everyone = _counts(right[independent])
    for name, value, part in _parts(slices):
        inside = _counts(right[part][independent[part]])
        rest = everyone - inside
        p = _fisher(inside, rest) if min(inside.sum(), rest.sum()) >= _ENOUGH else float("nan")
        is_better = inside[0] * everyone[1] > inside[1] * everyone[0]
        note = FEW if inside.sum() < _ENOUGH else BETTER if is_better else WORSE
        rows.append([name, value, len(part), *astuple(share_right(right[part], groups[part])), p, note])
    table = pd.DataFrame(rows, columns=list(_SLICES))
    tested = table.p.notna()
    table.loc[tested, "p"] = holm(table.p[tested].to_numpy(float))
    table.loc[(table.note != FEW) & ~(table.p <= _SIGNIFICANCE), "note"] = ""
    return _worst_first(table)


def write_parts(path: Path, table: pd.DataFrame) -> None:
    """Write what `class_table` or `slice_table` returned."""
    write_csv(path, table.round(4))


def read_classes(path: Path) -> pd.DataFrame:
    """Return the table of classes that `write_parts` wrote."""
    return read_csv(path, _CLASSES)


def read_slices(path: Path) -> pd.DataFrame:
    """Return the table of slices that `write_parts` wrote."""
    return read_csv(path, _SLICES)


def _parts(slices: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield each value of each slice with the positions of the photos that have it."""
    for name in slices.columns:
        values = slices[name].fillna("").astype(str).reset_index(drop=True)
        for value, part in values.groupby(values).indices.items():
            yield str(name), str(value), part


def _counts(right: np.ndarray) -> np.ndarray:
    """Return how many answers are right, and how many wrong."""
    return np.array([right.sum(), (~right).sum()], np.int64)


def _fisher(inside: np.ndarray, rest: np.ndarray) -> float:
    from scipy.stats import fisher_exact

    return float(fisher_exact([inside, rest])[1])  # two-sided


def _worst_first(table: pd.DataFrame) -> pd.DataFrame:
    """Order a table by the upper ends of intervals, so that a part with few photos is not the worst one by chance."""
    return table.sort_values(["high", "images"], ascending=[True, False], kind="stable").reset_index(drop=True)
