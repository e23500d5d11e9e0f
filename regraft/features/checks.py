"""Checks of the photos by their frozen features: leaks, label errors, outliers, drift.

A violated check of severity `error` stops the run, one of severity `warn` is a warning of the run, one of severity
`note` is listed in the report only, and one that is `off` is not made.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.config import CheckFeatures
from regraft.core.csv_files import write_csv
from regraft.core.errors import InvalidData
from regraft.core.statistics import wilson
from regraft.features.drift import Comparison, Drift, measure_drift
from regraft.features.label_errors import label_probabilities, rank_labels
from regraft.features.neighbours import Distances, Embeddings, embed, find_leaks, measure_distances, outlier_distances
from regraft.features.table import Features
from regraft.photos.dataset import SPLITS, Dataset
from regraft.photos.sample import stable_sample

MAX_PHOTOS = 50_000  # of each split that are checked: of more a sample, 0.2 points around a share of 5 %
# Pairs that chance may name where there is no leak: the limit of nearness follows from it and from this folder.
EXPECTED_LEAKS = 0.1
MOST_LEAKS, MOST_LABEL_ERRORS, MOST_OUTLIERS = 0.02, 0.05, 0.02  # largest shares of photos
OUTLIER_DEVIATIONS = 3.0  # robust standard deviations from which on a photo is an outlier
DRIFT_SIGNIFICANCE = 0.001  # chance of a false alarm, of all comparisons of a run together
_LABEL_COLUMNS = ["path", "label", "suggested", "score", "likely", "split", "group"]
_LISTED, _NAMED = 1000, 50  # findings that the report lists, and offenders that a check names
_DIGITS = 4  # of figures: more would change with the last bit of a sum


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
        dataset: of the features.
        groups: the group of each image of the data set: its copies, near-duplicates, and the user's own groups.
        settings: the severity of each check.
        comparisons: with the models that today's photos are compared with.
        on_progress: called with done and total after each check.

    Returns:
        reports/embeddings.json, and the images, the least believed label first, with their `row` in the data set.
    """
    embeddings, codes = _embedded(features, dataset), pd.factorize(np.asarray(groups, object))[0]
    looked_at = embeddings.looked_at
    sample = dataset.with_rows(dataset.rows.iloc[looked_at].reset_index(drop=True))
    labels = _ranked_labels(embeddings, codes[looked_at], sample, settings)
    labels["row"] = looked_at[labels.row.to_numpy(int)]
    labels["group"] = np.asarray(groups, object)[labels.row.to_numpy(int)]
    on_progress(1, 4)
    distances = measure_distances(embeddings, codes)
    leaks, limit = _leaks(embeddings, codes, distances, dataset, settings)
    on_progress(2, 4)
    outliers = _outliers(distances, sample, settings)
    on_progress(3, 4)
    comparable = sum(each.samples is not None for each in comparisons)
    drifts = [_drift(comparison, comparable, settings) for comparison in comparisons]
    on_progress(4, 4)
    held_out, is_sample = len(sample.of("val", "test")), len(sample) < len(dataset)
    expectations = [
        _no_leaks(settings, leaks, held_out, limit * float(np.median(distances.fifth)), is_sample),
        _right_labels(settings, labels, is_sample),
        _no_outliers(settings, outliers, len(sample), is_sample),
        *(_no_drift(settings, each, drift) for each, drift in zip(comparisons, drifts, strict=True) if drift),
    ]
    expectations = [expectation for expectation in expectations if expectation["severity"] != "off"]
    report = {
        "success": all(each["success"] for each in expectations if each["severity"] == "error"),
        "images": len(embeddings.everything),
        "looked_at": len(embeddings),
        "namespace": embeddings.features.namespace,
        "expectations": expectations,
        "leaks": leaks[:_LISTED],
        "label_errors": labels.loc[labels.likely, _LABEL_COLUMNS].head(_LISTED).to_dict("records"),
        "outliers": outliers[:_LISTED],
        "drift": [_drift_entry(each, drift) for each, drift in zip(comparisons, drifts, strict=True)],
    }
    return report, labels


def write_label_errors(path: Path, labels: pd.DataFrame) -> None:
    """Write the images as CSV, the least believable label first."""
    write_csv(path, labels[_LABEL_COLUMNS])


def _embedded(features: Features, dataset: Dataset) -> Embeddings:
    """Embed the photos that are checked, of each split all or a sample."""
    digests = [features.digests[position] for position in np.flatnonzero(features.views == 0).tolist()]
    if digests != dataset.rows.digest.tolist():
        raise InvalidData("the features are not those of the data set. Run the stage cache_features again.")
    classes = dataset.rows.class_index.to_numpy()
    of_splits = [np.flatnonzero(dataset.rows.split == split) for split in SPLITS]
    chosen = [
        rows[stable_sample([digests[row] for row in rows.tolist()], classes[rows], MAX_PHOTOS)] for rows in of_splits
    ]
    return embed(features, np.sort(np.concatenate(chosen)))


def _ranked_labels(
    embeddings: Embeddings, groups: np.ndarray, dataset: Dataset, settings: CheckFeatures
) -> pd.DataFrame:
    if settings.label_errors == "off":
        return pd.DataFrame({name: [] for name in ["row", *_LABEL_COLUMNS]}).astype({"row": int, "likely": bool})
    ranked = rank_labels(label_probabilities(embeddings, groups), embeddings.class_indices, groups)
    for column, of_dataset in (("path", "path"), ("label", "class_name"), ("split", "split")):
        ranked[column] = dataset.rows[of_dataset].to_numpy()[ranked.row]
    ranked["suggested"] = np.array(dataset.class_names, object)[ranked.suggested]
    ranked["score"] = ranked.score.astype(float).round(_DIGITS)
    return ranked.sort_values(["score", "path"], kind="stable").reset_index(drop=True)


def _leaks(
    embeddings: Embeddings, groups: np.ndarray, distances: Distances, dataset: Dataset, settings: CheckFeatures
) -> tuple[list[dict[str, Any]], float]:
    """Return photos that are nearly the same in two splits, and the share of the usual distance that is the limit."""
    if settings.leaks == "off":
        return [], 0.0
    found, limit = find_leaks(embeddings, groups, distances, EXPECTED_LEAKS)
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
    if settings.outliers == "off":
        return []
    deviations = outlier_distances(distances).round(_DIGITS)
    far = np.flatnonzero(deviations > OUTLIER_DEVIATIONS)
    paths, labels = dataset.rows.path.tolist(), dataset.rows.class_name.tolist()
    return [
        {"path": paths[row], "label": labels[row], "distance": float(deviations[row])}
        for row in far[np.argsort(-deviations[far], kind="stable")].tolist()
    ]


def _drift(comparison: Comparison, comparable: int, settings: CheckFeatures) -> Drift | None:
    """Measure one drift, with its part of the chance of a false alarm (Bonferroni)."""
    if comparison.samples is None or settings.drift == "off":
        return None
    return measure_drift(*comparison.samples, DRIFT_SIGNIFICANCE / comparable)


def _drift_entry(comparison: Comparison, drift: Drift | None) -> dict[str, Any]:
    words = comparison.words
    if comparison.samples and not drift:
        words += " Too few photos are new to tell drift from chance."
    figures = {name: round(value, _DIGITS) for name, value in asdict(drift).items()} if drift else None
    return {"against": comparison.against, "compared_with": words, "figures": figures}


def _finding(name: str, severity: str, success: bool, offenders: list[str], **words: str) -> dict[str, Any]:
    """Return one entry of the report, as in reports/validation.json; `words` are expected, found and advice."""
    named = {"offenders": offenders[:_NAMED], "count": len(offenders)}
    return {"name": name, "severity": severity, "success": bool(success), **words, **named}


def _share(found: int, looked_at: int, is_sample: bool) -> str:
    """Return the share with its interval, in words, where a sample was checked."""
    return f"; {wilson(found, looked_at)}, as this is a sample" if is_sample else ""


def _no_leaks(
    settings: CheckFeatures, leaks: list[dict[str, Any]], held_out: int, distance: float, is_sample: bool
) -> dict[str, Any]:
    photos = len({leak["path"] for leak in leaks})
    return _finding(
        "no_leaks",
        settings.leaks,
        photos <= MOST_LEAKS * held_out,
        [
            f"{leak['path']} ({leak['split']}) is nearly {leak['other_path']} ({leak['other_split']}): "
            f"{leak['similarity']:.3f}"
            for leak in leaks
        ],
        expected=f"at most {MOST_LEAKS:.1%} of the photos of val and test nearly the same as one in another split: "
        f"much nearer than others are around it (here usually below a distance of {distance:.2f}, a similarity of "
        f"{1 - distance**2 / 2:.3f})",
        found=f"{photos} of {held_out}, in {len(leaks)} pair(s){_share(photos, held_out, is_sample)}",
        advice="Remove one of the two, or keep both in one split: by a column group in labels.csv, or by splits of "
        "your own. Test figures may be too good by that share of photos.",
    )


def _right_labels(settings: CheckFeatures, labels: pd.DataFrame, is_sample: bool) -> dict[str, Any]:
    likely = labels[labels.likely]
    return _finding(
        "right_labels",
        settings.label_errors,
        len(likely) <= MOST_LABEL_ERRORS * len(labels),
        [f"{row.path} is '{row.label}' and looks like '{row.suggested}'" for row in likely.itertuples()],
        expected=f"at most {MOST_LABEL_ERRORS:.1%} of the labels likely wrong",
        found=f"{len(likely)} of {len(labels)}{_share(len(likely), len(labels), is_sample)}",
        advice="Look at the photos that label_errors.csv lists first and move those that are wrong to the right "
        "class, or set check_features.label_errors to note.",
    )


def _no_outliers(
    settings: CheckFeatures, outliers: list[dict[str, Any]], images: int, is_sample: bool
) -> dict[str, Any]:
    return _finding(
        "no_outliers",
        settings.outliers,
        len(outliers) <= MOST_OUTLIERS * images,
        [f"{outlier['path']}: {outlier['distance']:.1f} deviations" for outlier in outliers],
        expected=f"at most {MOST_OUTLIERS:.1%} of the photos unlike all others",
        found=f"{len(outliers)} of {images}{_share(len(outliers), images, is_sample)}",
        advice="Remove those that do not belong to the data set, add photos like those that do, or set "
        "check_features.outliers to note.",
    )


def _no_drift(settings: CheckFeatures, comparison: Comparison, drift: Drift) -> dict[str, Any]:
    is_slow = comparison.against == "anchor"
    model = "the anchor" if is_slow else "the model in production"
    return _finding(
        "no_slow_drift" if is_slow else "no_drift",
        settings.drift,
        not drift.is_drift,
        [],
        expected=f"new photos as near to those of {model}, class by class, as these are to each other",
        found=f"distances with a stability index of {drift.population_stability:.3f} (limit "
        f"{drift.population_stability_limit:.3f}), {drift.far_share:.1%} far away (limit {drift.far_share_limit:.1%}), "
        f"a shift of {drift.shift:.2f} (limit {drift.shift_limit:.2f}) for {drift.new} new photos",
        advice="Find out what has changed: light, camera, kinds of things. If it is here to stay, do nothing: the next "
        "model brings its own data, once it is " + ("approved by a person." if is_slow else "promoted."),
    )
