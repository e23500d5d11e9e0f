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

from regraft.validation.drift import STATISTICS
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


def calibrated(images: pd.DataFrame, expectations: Sequence[Expectation]) -> list[Expectation]:
    """Return expectations with this folder's limits in place of those beyond which values are usual here.

    Args:
        images: the table of images of `regraft.validation.checks.build_tables`.
        expectations: those with `unusual` change.
    """
    return [_calibrated(images, each) if each.unusual else each for each in expectations]


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
    """Return the lowest and highest value that a photo should have, by the columns of `drift.STATISTICS`."""
    found: dict[str, tuple[float | None, float | None]] = dict.fromkeys(STATISTICS, (None, None))
    for each in expectations:
        if each.unusual:
            column = each.columns[0]
            lowest, highest = _limits(each)
            before = found[column]
            found[column] = (before[0] if lowest is None else lowest, before[1] if highest is None else highest)
    return found


def _limits(expectation: Expectation) -> tuple[float | None, float | None]:
    return expectation.arguments.get("min_value"), expectation.arguments.get("max_value")


def _calibrated(images: pd.DataFrame, expectation: Expectation) -> Expectation:
    (column,), arguments, unusual = expectation.columns, expectation.arguments, expectation.unusual or 0
    values = images[column].dropna().to_numpy(np.float64)
    if not len(values):
        return expectation
    # `suite` takes `unusual` with one of both limits only.
    key, side = ("min_value", "below") if arguments.get("min_value") is not None else ("max_value", "above")
    wanted, scale = float(arguments[key]), _SCALES.get(column, (_LOGARITHM, _LOGARITHM))[key == "max_value"]
    scaled = scale.there(values)
    median = float(np.median(scaled))
    reach = max(unusual * _MAD_TO_DEVIATION * float(np.median(np.abs(scaled - median))), _LEAST_REACH)
    if side == "below":
        limit = min(wanted, scale.back(median - reach))
        usual = (values < wanted) & (values >= limit)
    else:
        limit = max(wanted, scale.back(median + reach))
        usual = (values > wanted) & (values <= limit)
    if limit == wanted:
        return expectation
    note = f"{usual.sum()} of {len(values)} are {side} {wanted:g}, which is usual in this folder."
    return replace(
        expectation,
        arguments=arguments | {key: limit},
        expected=f"{expectation.expected}; only {side} {limit:.3g} is it unusual among these photos",
        note=note if usual.any() else "",
    )
