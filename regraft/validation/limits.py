"""Limits that a folder calibrates: a photo violates one only if it is also unlike the other photos.

A limit such as "at least 32 pixels" is right for most folders and wrong for one of digits, all of which are smaller. So
a value must be beyond the limit and beyond what is usual here:

    median - unusual * deviation,        deviation = 1.4826 * median(|value - median|)

on a scale on which the values of a folder spread alike to both sides: logarithms of sizes, ratios and sharpness, square
roots of shares and entropy. A few odd photos move neither figure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.config import ValidateData
from regraft.core.setting_types import AtLeast, AtMost

_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
_LEAST = 1e-6  # whose logarithm stands for that of zero
_LEAST_REACH = 0.1  # where all photos are nearly equal, such as in size; as a logarithm it is a tenth


@dataclass(frozen=True, slots=True)
class Limit:
    """Beyond which values a rule is violated in one folder."""

    column: str  # of the table of images that it is about
    is_lowest: bool
    value: float  # the limit of params.yaml, or the farthest usual value where that is beyond it
    note: str  # how many photos are beyond the one and not beyond the other; empty if none is


@dataclass(frozen=True, slots=True)
class _Scale:
    """A scale that rises with the value, and the way back."""

    there: Callable[[np.ndarray], np.ndarray]
    back: Callable[[float], float]


_LOGARITHM = _Scale(lambda values: np.log(np.maximum(values, _LEAST)), lambda scaled: float(np.exp(scaled)))
_ROOT = _Scale(np.sqrt, lambda scaled: max(0.0, scaled) ** 2)
_ROOT_FROM_WHITE = _Scale(lambda values: -np.sqrt(1 - values), lambda scaled: 1 - min(0.0, scaled) ** 2)
_CALIBRATED = {  # rule: column of the table of images, and its scale
    "large_enough_images": ("shorter_side", _LOGARITHM),
    "usual_shape": ("aspect_ratio", _LOGARITHM),
    "bright_enough": ("brightness", _ROOT),
    "not_too_bright": ("brightness", _ROOT_FROM_WHITE),
    "enough_contrast": ("contrast", _ROOT),
    "sharp_enough": ("sharpness", _LOGARITHM),
    "enough_information": ("entropy", _ROOT),
}


def calibrate(images: pd.DataFrame, settings: ValidateData) -> dict[str, Limit]:
    """Return a folder's limits by the name of the rule.

    Args:
        images: the table of images of `regraft.validation.checks.build_tables`.
        settings: limits, and how many deviations from the median are unusual.
    """
    limits = {}
    for rule, (column, scale) in _CALIBRATED.items():
        values = images[column].dropna().to_numpy(np.float64)
        if len(values):
            limits[rule] = _limit(column, values, scale, getattr(settings, rule), settings.unusual)
    return limits


def are_odd(images: pd.DataFrame, limits: Mapping[str, Limit], settings: ValidateData) -> pd.Series:
    """Return of every image whether something is odd about it: a value beyond a limit, or another label of its like.

    Args:
        images: the table of images of `regraft.validation.checks.build_tables`.
        limits: from `calibrate`.
        settings: severities; a check that is off finds nothing odd.
    """
    odd = images.conflict.astype(bool)
    if settings.one_label_per_group != "off":
        odd |= images.labels_of_group > 1
    for rule, limit in limits.items():
        if getattr(settings, rule).severity != "off":
            values = images[limit.column]
            odd |= values < limit.value if limit.is_lowest else values > limit.value
    return odd


def _limit(
    column: str, values: np.ndarray, scale: _Scale, setting: AtLeast[Any] | AtMost[Any], unusual: float
) -> Limit:
    scaled = scale.there(values)
    median = float(np.median(scaled))
    reach = max(unusual * _MAD_TO_DEVIATION * float(np.median(np.abs(scaled - median))), _LEAST_REACH)
    if isinstance(setting, AtLeast):
        wanted, side = setting.min, "below"
        limit = min(float(wanted), scale.back(median - reach))
        usual = (values < wanted) & (values >= limit)
    else:
        wanted, side = setting.max, "above"
        limit = max(float(wanted), scale.back(median + reach))
        usual = (values > wanted) & (values <= limit)
    note = f"{usual.sum()} of {len(values)} are {side} {wanted:g}, which is usual in this folder."
    return Limit(column, isinstance(setting, AtLeast), limit, note if usual.any() else "")
