"""What the checks of features found, as entries of a report: what was expected, what is so, and what to do."""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from regraft.core.config import CheckFeatures
from regraft.core.statistics import wilson
from regraft.features.drift import Comparison, Drift

_NAMED = 50  # offenders that a check names; their number is always whole


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one check found."""

    name: str
    severity: str
    success: bool
    expected: str
    found: str
    offenders: list[str]
    advice: str

    def as_report(self) -> dict[str, Any]:
        """Return one entry of the report, as in reports/validation.json."""
        report = {**asdict(self), "success": bool(self.success), "offenders": self.offenders[:_NAMED]}
        return report | {"count": len(self.offenders)}


def _share(found: int, looked_at: int, is_sample: bool) -> str:
    """The share with its interval, in words, where a sample was looked at."""
    return f"; {wilson(found, looked_at)}, as this is a sample" if is_sample else ""


def expect_no_leaks(
    settings: CheckFeatures, leaks: list[dict[str, Any]], held_out: int, distance: float, is_sample: bool
) -> dict[str, Any]:
    """Return whether few photos of val and test are nearly the same as one in another split."""
    photos = len({leak["path"] for leak in leaks})
    return _Finding(
        "no_leaks",
        settings.leaks.severity,
        photos <= settings.leaks.max * held_out,
        f"at most {settings.leaks.max:.1%} of the photos of val and test nearly the same as one in another split: much "
        f"nearer than others are around it (here usually below a distance of {distance:.2f}, a similarity of "
        f"{1 - distance**2 / 2:.3f})",
        f"{photos} of {held_out}, in {len(leaks)} pair(s){_share(photos, held_out, is_sample)}",
        [
            f"{leak['path']} ({leak['split']}) is nearly {leak['other_path']} ({leak['other_split']}): "
            f"{leak['similarity']:.3f}"
            for leak in leaks
        ],
        "Remove one of the two, or keep both in one split: by a column group in labels.csv, or by splits of your own. "
        "Test figures may be too good by that share of photos.",
    ).as_report()


def expect_right_labels(settings: CheckFeatures, labels: pd.DataFrame, is_sample: bool) -> dict[str, Any]:
    """Return whether few labels are likely wrong."""
    likely = labels[labels.likely]
    return _Finding(
        "right_labels",
        settings.label_errors.severity,
        len(likely) <= settings.label_errors.max * len(labels),
        f"at most {settings.label_errors.max:.1%} of the labels likely wrong",
        f"{len(likely)} of {len(labels)}{_share(len(likely), len(labels), is_sample)}",
        [f"{row.path} is '{row.label}' and looks like '{row.suggested}'" for row in likely.itertuples()],
        "Look at the photos that label_errors.csv lists first and move those that are wrong to the right class, or "
        "raise check_features.label_errors.max.",
    ).as_report()


def expect_no_outliers(
    settings: CheckFeatures, outliers: list[dict[str, Any]], images: int, is_sample: bool
) -> dict[str, Any]:
    """Return whether few photos are unlike all others."""
    return _Finding(
        "no_outliers",
        settings.outliers.severity,
        len(outliers) <= settings.outliers.max * images,
        f"at most {settings.outliers.max:.1%} of the photos unlike all others",
        f"{len(outliers)} of {images}{_share(len(outliers), images, is_sample)}",
        [f"{outlier['path']}: {outlier['distance']:.1f} deviations" for outlier in outliers],
        "Remove those that do not belong to the data set, add photos like those that do, or raise "
        "check_features.outliers.max.",
    ).as_report()


def expect_no_drift(settings: CheckFeatures, comparison: Comparison, drift: Drift) -> dict[str, Any]:
    """Return whether photos that are new are like those that a model was trained on."""
    is_slow = comparison.against == "anchor"
    model = "the anchor" if is_slow else "the model in production"
    return _Finding(
        "no_slow_drift" if is_slow else "no_drift",
        settings.drift.severity,
        not drift.is_drift,
        f"new photos as near to those of {model}, class by class, as these are to each other",
        f"distances with a stability index of {drift.population_stability:.3f} (limit "
        f"{drift.population_stability_limit:.3f}), {drift.far_share:.1%} far away (limit {drift.far_share_limit:.1%}), "
        f"a shift of {drift.shift:.2f} (limit {drift.shift_limit:.2f}) for {drift.new} new photos",
        [],
        "Find out what has changed: light, camera, kinds of things. If it is here to stay, do nothing: the next model "
        "brings its own data, once it is " + ("approved by a person." if is_slow else "promoted."),
    ).as_report()
