"""What the frozen features say about the photos, in the words that a person reads: leaks, labels, outliers, drift.

A check of severity `error` stops the run where it is violated, one of severity `warn` is a warning of the run, what a
`note` finds stands in the report only, and one that is `off` is not made.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.config import CheckFeatures
from regraft.csv_files import write_csv
from regraft.errors import InvalidData
from regraft.features.drift import Comparison, Drift, measure_drift
from regraft.features.label_errors import label_probabilities, rank_labels
from regraft.features.neighbours import Distances, Embeddings, embed, find_leaks, measure_distances, outlier_distances
from regraft.features.table import Features
from regraft.photos.dataset import Dataset

_LABEL_COLUMNS = ["path", "label", "suggested", "score", "likely", "split", "group"]
_NAMED = 50  # offenders that a check names; their number is always whole
_LISTED = 1000  # leaks, likely label errors and outliers that the report lists
_DIGITS = 4  # of figures: more would change with the last bit of a sum


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
    groups: Sequence[str],
    settings: CheckFeatures,
    comparisons: Sequence[Comparison],
    *,
    on_progress: Callable[[int, int], None],
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Make the checks that are not off.

    Args:
        features: of the data set; the unchanged view of each image counts.
        dataset: where the features come from.
        groups: the group of each image of the data set: its copies, near-duplicates, and those that the user grouped.
        settings: severities and thresholds.
        comparisons: with the models that today's photos are compared with; the chance of a false alarm is that of all.
        on_progress: called with done and total after each check.

    Returns:
        reports/embeddings.json, and the images, the least believed label first, with their `row` in the data set.
    """
    embeddings, codes = _embedded(features, dataset), pd.factorize(np.asarray(groups, object))[0]
    labels = _ranked_labels(embeddings, codes, dataset, settings)
    labels["group"] = np.asarray(groups, object)[labels.row.to_numpy(int)]
    on_progress(1, 4)
    distances = measure_distances(embeddings, codes)
    leaks, limit = _leaks(embeddings, distances, dataset, settings)
    on_progress(2, 4)
    outliers = _outliers(distances, dataset, settings)
    on_progress(3, 4)
    measured = [(comparison, _drift(comparison, comparisons, settings)) for comparison in comparisons]
    on_progress(4, 4)
    held_out = int(dataset.rows.split.isin(["val", "test"]).sum())
    expectations = [
        _expect_no_leaks(settings, leaks, held_out, limit * float(np.median(distances.fifth))),
        _expect_right_labels(settings, labels),
        _expect_no_outliers(settings, outliers, len(dataset)),
        *(_expect_no_drift(settings, comparison, drift) for comparison, drift in measured if drift),
    ]
    found = {
        "leaks": leaks[:_LISTED],
        "label_errors": labels.loc[labels.likely, _LABEL_COLUMNS].head(_LISTED).to_dict("records"),
        "outliers": outliers[:_LISTED],
        "drift": [_drift_entry(comparison, drift) for comparison, drift in measured],
    }
    return _report(features, expectations) | found, labels


def _drift(comparison: Comparison, all_of_them: Sequence[Comparison], settings: CheckFeatures) -> Drift | None:
    """Measure one drift, with its part of the chance of a false alarm (Bonferroni)."""
    if comparison.samples is None or settings.drift.severity == "off":
        return None
    comparable = sum(each.samples is not None for each in all_of_them)
    return measure_drift(*comparison.samples, settings.drift.significance / comparable)


def _drift_entry(comparison: Comparison, drift: Drift | None) -> dict[str, Any]:
    """What the report says of one comparison."""
    words = comparison.words
    if comparison.samples and not drift:
        words += " Too few photos are new to tell drift from chance."
    figures = {name: round(value, _DIGITS) for name, value in asdict(drift).items()} if drift else None
    return {"against": comparison.against, "compared_with": words, "figures": figures}


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
    """Write the images as CSV, the least believable label first."""
    write_csv(path, labels[_LABEL_COLUMNS])


def _ranked_labels(
    embeddings: Embeddings, groups: np.ndarray, dataset: Dataset, settings: CheckFeatures
) -> pd.DataFrame:
    if settings.label_errors.severity == "off":
        return pd.DataFrame({name: [] for name in ["row", *_LABEL_COLUMNS]}).astype({"row": int, "likely": bool})
    ranked = rank_labels(label_probabilities(embeddings, groups), embeddings.class_indices, groups)
    for column, of_dataset in (("path", "path"), ("label", "class_name"), ("split", "split")):
        ranked[column] = dataset.rows[of_dataset].to_numpy()[ranked.row]
    ranked["suggested"] = np.array(dataset.class_names, object)[ranked.suggested]
    ranked["score"] = ranked.score.astype(float).round(_DIGITS)
    return ranked.sort_values(["score", "path"], kind="stable").reset_index(drop=True)


def _leaks(
    embeddings: Embeddings, distances: Distances, dataset: Dataset, settings: CheckFeatures
) -> tuple[list[dict[str, Any]], float]:
    """What is nearly the same in two splits, and the share of the usual distance below which it is."""
    if settings.leaks.severity == "off":
        return [], 0.0
    found, limit = find_leaks(embeddings, distances, settings.leaks.expected)
    paths, splits = dataset.rows.path.tolist(), dataset.rows.split.tolist()
    leaks = [
        {
            "path": paths[row],
            "split": splits[row],
            "other_path": paths[other],
            "other_split": splits[other],
            "similarity": round(similarity, _DIGITS),
        }
        for row, other, similarity in found
    ]
    return leaks, limit


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


def _expect_no_leaks(
    settings: CheckFeatures, leaks: list[dict[str, Any]], held_out: int, distance: float
) -> dict[str, Any]:
    photos = len({leak["path"] for leak in leaks})
    return _Check(
        "no_leaks",
        settings.leaks.severity,
        photos <= settings.leaks.max * held_out,
        f"at most {settings.leaks.max:.1%} of the photos of val and test nearly the same as one in another split: much "
        f"nearer than others are around it (here usually below a distance of {distance:.2f}, a similarity of "
        f"{1 - distance**2 / 2:.3f})",
        f"{photos} of {held_out}, in {len(leaks)} pair(s)",
        [
            f"{leak['path']} ({leak['split']}) is nearly {leak['other_path']} ({leak['other_split']}): "
            f"{leak['similarity']:.3f}"
            for leak in leaks
        ],
        "Remove one of the two, or keep both in one split: by a column group in labels.csv, or by splits of your own. "
        "Test figures may be too good by that share of photos.",
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


def _expect_no_drift(settings: CheckFeatures, comparison: Comparison, drift: Drift) -> dict[str, Any]:
    is_slow = comparison.against == "anchor"
    model = "the last model that a person approved" if is_slow else "the model in production"
    return _Check(
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
