"""What the frozen features say about the photos, in the words that a person reads: leaks, labels, outliers, drift.

A check of severity `error` stops the run where it is violated, one of severity `warn` is reported, and one that is
`off` is not made.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.config import CheckFeatures
from regraft.csv_files import write_csv
from regraft.errors import InvalidData
from regraft.features.drift import Drift, measure_drift
from regraft.features.label_errors import label_probabilities, rank_labels
from regraft.features.neighbours import (
    Distances,
    Embeddings,
    embed,
    find_leaks,
    measure_distances,
    outlier_distances,
)
from regraft.features.table import Features
from regraft.photos.dataset import Dataset

_LABEL_COLUMNS = ["path", "label", "suggested", "score", "likely"]
_NAMED = 50  # offenders that a check names; their number is always whole
_LISTED = 1000  # leaks, likely label errors and outliers that the report lists
_DIGITS = 4  # of figures: more would change with the last bit of a sum

InProduction = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class _Check:
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


def check(
    features: Features,
    dataset: Dataset,
    settings: CheckFeatures,
    in_production: InProduction | None,
    *,
    compared_with: str,
    on_progress: Callable[[int, int], None],
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Make the checks that are not off.

    Args:
        features: of the data set; the unchanged view of each image counts.
        dataset: where the features come from.
        settings: severities and thresholds.
        in_production: features, shape (n, dim), of photos of the model in production and of new ones; None: there are
            none from the same backbone.
        compared_with: a sentence that says which model that is, or why there is nothing.
        on_progress: called with done and total after each check.

    Returns:
        reports/embeddings.json, and the images, the least believed label first, with their `row` in the data set.
    """
    embeddings = _embedded(features, dataset)
    labels = _ranked_labels(embeddings, dataset, settings)
    on_progress(1, 4)
    distances = measure_distances(embeddings)
    leaks = _leaks(embeddings, distances, dataset, settings)
    on_progress(2, 4)
    outliers = _outliers(distances, dataset, settings)
    on_progress(3, 4)
    drift = measure_drift(*in_production, settings.drift.significance) if in_production else None
    if in_production and drift is None:
        compared_with += " Too few photos are new to tell drift from chance."
    on_progress(4, 4)
    expectations = [
        _expect_no_leaks(settings, leaks, distances),
        _expect_right_labels(settings, labels),
        _expect_no_outliers(settings, outliers, len(dataset)),
        *([_expect_no_drift(settings, drift)] if drift else []),
    ]
    found = {
        "leaks": leaks[:_LISTED],
        "label_errors": labels.loc[labels.likely, _LABEL_COLUMNS[:4]].head(_LISTED).to_dict("records"),
        "outliers": outliers[:_LISTED],
        "compared_with": compared_with,
        "drift": drift and {name: round(value, _DIGITS) for name, value in asdict(drift).items()},
    }
    return _report(features, expectations) | found, labels


def _embedded(features: Features, dataset: Dataset) -> Embeddings:
    """Embed the features, or raise InvalidData if they are those of another data set."""
    embeddings = embed(features)
    if [features.digests[position] for position in embeddings.positions] != dataset.rows.digest.tolist():
        raise InvalidData("the features are not those of the data set. Run the stage cache_features again.")
    return embeddings


def _report(features: Features, expectations: list[dict[str, Any]]) -> dict[str, Any]:
    """The report, without what is listed one by one."""
    expectations = [expectation for expectation in expectations if expectation["severity"] != "off"]
    return {
        "success": all(each["success"] for each in expectations if each["severity"] == "error"),
        "images": int((features.views == 0).sum()),
        "namespace": features.namespace,
        "expectations": expectations,
    }


def write_label_errors(path: Path, labels: pd.DataFrame) -> None:
    """Write the images as CSV, the least believable label first: path, label, suggested, score, likely."""
    write_csv(path, labels[_LABEL_COLUMNS])


def _ranked_labels(embeddings: Embeddings, dataset: Dataset, settings: CheckFeatures) -> pd.DataFrame:
    if settings.label_errors.severity == "off":
        return pd.DataFrame({name: [] for name in ["row", *_LABEL_COLUMNS]}).astype({"row": int, "likely": bool})
    ranked = rank_labels(label_probabilities(embeddings), embeddings.class_indices)
    ranked["path"] = dataset.rows.path.to_numpy()[ranked.row]
    ranked["label"] = dataset.rows.class_name.to_numpy()[ranked.row]
    ranked["suggested"] = np.array(dataset.class_names, object)[ranked.suggested]
    ranked["score"] = ranked.score.astype(float).round(_DIGITS)
    return ranked.sort_values(["score", "path"], kind="stable").reset_index(drop=True)


def _leaks(
    embeddings: Embeddings, distances: Distances, dataset: Dataset, settings: CheckFeatures
) -> list[dict[str, Any]]:
    if settings.leaks.severity == "off":
        return []
    paths, splits = dataset.rows.path.tolist(), dataset.rows.split.tolist()
    return [
        {
            "path": paths[row],
            "split": splits[row],
            "other_path": paths[other],
            "other_split": splits[other],
            "similarity": round(similarity, _DIGITS),
        }
        for row, other, similarity in find_leaks(
            embeddings,
            distances,
            min_similarity=settings.leaks.min_similarity,
            max_distance=settings.leaks.max_distance,
        )
    ]


def _outliers(distances: Distances, dataset: Dataset, settings: CheckFeatures) -> list[dict[str, Any]]:
    if settings.outliers.severity == "off":
        return []
    deviations = outlier_distances(distances).round(_DIGITS)
    far = np.flatnonzero(deviations > settings.outliers.distance)
    paths, labels = dataset.rows.path.tolist(), dataset.rows.class_name.tolist()
    return [
        {"path": paths[row], "label": labels[row], "distance": float(deviations[row])}
        for row in far[np.argsort(-deviations[far], kind="stable")].tolist()
    ]


def _expect_no_leaks(settings: CheckFeatures, leaks: list[dict[str, Any]], distances: Distances) -> dict[str, Any]:
    limits, usual = settings.leaks, float(np.median(distances.around))
    return _Check(
        "no_leaks",
        limits.severity,
        not leaks,
        f"no photo in two splits that is nearly the same: of similarity {limits.min_similarity:g} or more, and nearer "
        f"than {limits.max_distance:g} times the usual distance around it ({limits.max_distance * usual:.2f} here, a "
        f"similarity of {1 - (limits.max_distance * usual) ** 2 / 2:.3f})",
        f"{len(leaks)} pair(s)",
        [
            f"{leak['path']} ({leak['split']}) is nearly {leak['other_path']} ({leak['other_split']}): "
            f"{leak['similarity']:.3f}"
            for leak in leaks
        ],
        "Remove one of the two, or give the splits yourself and keep both in one; test figures are too good otherwise.",
    ).as_report()


def _expect_right_labels(settings: CheckFeatures, labels: pd.DataFrame) -> dict[str, Any]:
    likely = labels[labels.likely]
    return _Check(
        "right_labels",
        settings.label_errors.severity,
        len(likely) <= settings.label_errors.max * len(labels),
        f"at most {settings.label_errors.max:.1%} of the labels likely wrong",
        f"{len(likely)} of {len(labels)}",
        [f"{row.path} is '{row.label}' and looks like '{row.suggested}'" for row in likely.itertuples()],
        "Look at the photos that label_errors.csv lists first and move those that are wrong to the right class, or "
        "raise check_features.label_errors.max.",
    ).as_report()


def _expect_no_outliers(settings: CheckFeatures, outliers: list[dict[str, Any]], images: int) -> dict[str, Any]:
    return _Check(
        "no_outliers",
        settings.outliers.severity,
        len(outliers) <= settings.outliers.max * images,
        f"at most {settings.outliers.max:.1%} of the photos unlike all others",
        f"{len(outliers)} of {images}",
        [f"{outlier['path']}: {outlier['distance']:.1f} deviations" for outlier in outliers],
        "Remove those that do not belong to the data set, add photos like those that do, or raise "
        "check_features.outliers.max.",
    ).as_report()


def _expect_no_drift(settings: CheckFeatures, drift: Drift) -> dict[str, Any]:
    return _Check(
        "no_drift",
        settings.drift.severity,
        not drift.is_drift,
        f"new photos as near to one half of those of the model in production as its other half is: a stability index "
        f"of at most {drift.population_stability_limit:.3f}, at most {drift.far_share_limit:.1%} of them far away, a "
        f"shift of at most {drift.shift_limit:.2f}",
        f"{drift.population_stability:.3f}, {drift.far_share:.1%} and {drift.shift:.2f} for {drift.new} new photos",
        [],
        "Find out what has changed (light, camera, kinds of things); if it is here to stay, set "
        "check_features.drift.severity to warn and retrain.",
    ).as_report()
