"""What the frozen features say about the photos, in the words that a person reads: leaks, labels, outliers, drift.

A check of severity `error` stops the run where it is violated, one of severity `warn` is a warning of the run, what a
`note` finds stands in the report only, and one that is `off` is not made.
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
from regraft.features.drift import Comparison, Drift, measure_drift
from regraft.features.findings import expect_no_drift, expect_no_leaks, expect_no_outliers, expect_right_labels
from regraft.features.label_errors import label_probabilities, rank_labels
from regraft.features.leaks import find_leaks
from regraft.features.neighbours import Distances, Embeddings, embed, measure_distances, outlier_distances
from regraft.features.table import Features
from regraft.photos.dataset import SPLITS, Dataset
from regraft.photos.sample import stable_sample

_LABEL_COLUMNS = ["path", "label", "suggested", "score", "likely", "split", "group"]
_LISTED = 1000  # leaks, likely label errors and outliers that the report lists
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
        dataset: where the features come from.
        groups: the group of each image of the data set: its copies, near-duplicates, and those that the user grouped.
        settings: severities and thresholds, and of how many photos of each split at most a sample is looked at.
        comparisons: with the models that today's photos are compared with; the chance of a false alarm is that of all.
        on_progress: called with done and total after each check.

    Returns:
        reports/embeddings.json, and the images, the least believed label first, with their `row` in the data set.
    """
    embeddings, codes = _embedded(features, dataset, settings), pd.factorize(np.asarray(groups, object))[0]
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
    measured = [(comparison, _drift(comparison, comparisons, settings)) for comparison in comparisons]
    on_progress(4, 4)
    held_out, is_sample = len(sample.of("val", "test")), len(sample) < len(dataset)
    expectations = [
        expect_no_leaks(settings, leaks, held_out, limit * float(np.median(distances.fifth)), is_sample),
        expect_right_labels(settings, labels, is_sample),
        expect_no_outliers(settings, outliers, len(sample), is_sample),
        *(expect_no_drift(settings, comparison, drift) for comparison, drift in measured if drift),
    ]
    found = {
        "leaks": leaks[:_LISTED],
        "label_errors": labels.loc[labels.likely, _LABEL_COLUMNS].head(_LISTED).to_dict("records"),
        "outliers": outliers[:_LISTED],
        "drift": [_drift_entry(comparison, drift) for comparison, drift in measured],
    }
    return _report(embeddings, expectations) | found, labels


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


def _embedded(features: Features, dataset: Dataset, settings: CheckFeatures) -> Embeddings:
    """Embed the features of what is looked at, or raise InvalidData if they are those of another data set."""
    digests = [features.digests[position] for position in np.flatnonzero(features.views == 0).tolist()]
    if digests == dataset.rows.digest.tolist():
        return embed(features, _sampled(dataset, settings.max_photos))
    raise InvalidData("the features are not those of the data set. Run the stage cache_features again.")


def _sampled(dataset: Dataset, most: int) -> np.ndarray:
    """Numbers of the photos that are looked at: of each split all, or a sample of so many."""
    digests, classes = dataset.rows.digest.to_numpy(), dataset.rows.class_index.to_numpy()
    of_splits = [np.flatnonzero(dataset.rows.split == split) for split in SPLITS]
    chosen = [rows[stable_sample(digests[rows].tolist(), classes[rows], most)] for rows in of_splits]
    return np.sort(np.concatenate(chosen))


def _report(embeddings: Embeddings, expectations: list[dict[str, Any]]) -> dict[str, Any]:
    """The report, without what is listed one by one."""
    expectations = [expectation for expectation in expectations if expectation["severity"] != "off"]
    return {
        "success": all(each["success"] for each in expectations if each["severity"] == "error"),
        "images": len(embeddings.everything),
        "looked_at": len(embeddings),
        "namespace": embeddings.features.namespace,
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
    embeddings: Embeddings, groups: np.ndarray, distances: Distances, dataset: Dataset, settings: CheckFeatures
) -> tuple[list[dict[str, Any]], float]:
    """What is nearly the same in two splits, and the share of the usual distance below which it is."""
    if settings.leaks.severity == "off":
        return [], 0.0
    found, limit = find_leaks(embeddings, groups, distances, settings.leaks.expected)
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
