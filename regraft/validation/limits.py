"""Limits that a folder calibrates: a photo violates one only if it is also unlike the other photos.

A limit such as "at least 32 pixels" is right for most folders and wrong for one of digits, all of which are smaller. So
a value must be beyond the limit and beyond what is usual here:

    median - unusual * deviation,        deviation = 1.4826 * median(|value - median|)

on a scale on which the values of a folder spread alike to both sides: logarithms of sizes, ratios and sharpness, square
roots of shares and entropy. A few odd photos move neither figure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from regraft.validation.great_expectations import Expectation

_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
_LEAST = 1e-6  # whose logarithm stands for that of zero
_LEAST_REACH = 0.1  # where all photos are nearly equal, such as in size; as a logarithm it is a tenth


@dataclass(frozen=True, slots=True)
class _Scale:
    """A scale that rises with the value, and the way back."""

    there: Callable[[np.ndarray], np.ndarray]
    back: Callable[[float], float]


_LOGARITHM = _Scale(lambda values: np.log(np.maximum(values, _LEAST)), lambda scaled: float(np.exp(scaled)))
_ROOT = _Scale(np.sqrt, lambda scaled: max(0.0, scaled) ** 2)
_ROOT_FROM_WHITE = _Scale(lambda values: -np.sqrt(1 - values), lambda scaled: 1 - min(0.0, scaled) ** 2)
_SCALES = {  # column of the table of images: scale of its lowest, and of its highest values
    "brightness": (_ROOT, _ROOT_FROM_WHITE),
    "contrast": (_ROOT, _ROOT),
    "entropy": (_ROOT, _ROOT),
}
USUAL_COLUMNS = ("brightness", "contrast", "sharpness", "entropy", "shorter_side", "aspect_ratio")  # with histograms


def calibrated(images: pd.DataFrame, expectations: Sequence[Expectation]) -> list[Expectation]:
    """Return expectations with this folder's limits in place of those beyond which values are usual here.

    Args:
        images: the table of images of `regraft.validation.checks.build_tables`.
        expectations: those with `unusual` change, where their table is that of images.
    """
    return [_calibrated(images, each) if each.unusual and each.table == "images" else each for each in expectations]


def are_odd(images: pd.DataFrame, expectations: Sequence[Expectation]) -> pd.Series:
    """Return for every image whether a value is beyond a limit or its near-duplicates have another label: bool.

    Args:
        images: the table of images of `regraft.validation.checks.build_tables`.
        expectations: from `calibrated`; those that are absent find nothing odd.
    """
    odd = images.conflict.astype(bool)
    for each in expectations:
        if each.table == "images" and (each.unusual or each.columns == ["labels_of_group"]):
            values, (lowest, highest) = images[each.columns[0]], _limits(each)
            odd |= (values < (-np.inf if lowest is None else lowest)) | (
                values > (np.inf if highest is None else highest)
            )
    return odd


def limits_by_column(expectations: Sequence[Expectation]) -> dict[str, tuple[float | None, float | None]]:
    """Return the lowest and highest value that a photo should have, by the columns of `USUAL_COLUMNS`."""
    found: dict[str, tuple[float | None, float | None]] = dict.fromkeys(USUAL_COLUMNS, (None, None))
    for each in expectations:
        if each.unusual and each.table == "images" and (column := each.columns[0]) in found:
            lowest, highest = _limits(each)
            before = found[column]
            found[column] = (before[0] if lowest is None else lowest, before[1] if highest is None else highest)
    return found


def _limits(expectation: Expectation) -> tuple[float | None, float | None]:
    return expectation.arguments.get("min_value"), expectation.arguments.get("max_value")


def _calibrated(images: pd.DataFrame, expectation: Expectation) -> Expectation:
    column, (lowest, highest) = expectation.columns[0], _limits(expectation)
    is_lowest = lowest is not None
    wanted = float(lowest if lowest is not None else highest)  # type: ignore[arg-type]
    values = images[column].dropna().to_numpy(np.float64)
    if not len(values):
        return expectation
    scale = _SCALES.get(column, (_LOGARITHM, _LOGARITHM))[0 if is_lowest else 1]
    scaled = scale.there(values)
    median = float(np.median(scaled))
    deviation = _MAD_TO_DEVIATION * float(np.median(np.abs(scaled - median)))
    reach = max((expectation.unusual or 0) * deviation, _LEAST_REACH)
    if is_lowest:
        limit, side = min(wanted, scale.back(median - reach)), "below"
        usual = (values < wanted) & (values >= limit)
    else:
        limit, side = max(wanted, scale.back(median + reach)), "above"
        usual = (values > wanted) & (values <= limit)
    if limit == wanted:
        return expectation
    note = (
        f"{usual.sum()} of {len(values)} are {side} {wanted:g}, which is usual in this folder." if usual.any() else ""
    )
    return replace(
        expectation,
        arguments=expectation.arguments | {"min_value" if is_lowest else "max_value": limit},
        expected=f"{expectation.expected}; only {side} {limit:.3g} is it unusual among these photos",
        note=note,
    )
