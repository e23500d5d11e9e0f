"""Wrong labels: how many of those that are planted stand at the top of the list that check_features writes.

    python -m benchmarks.checks.label_errors DIR [--seeds 3] [--quick]

Two of a hundred labels are exchanged for another class at random, in all splits, and the photos ranked by how little
their label is believed. The baseline is cross-validation in five parts with scikit-learn's logistic regression, ranked
in the same way: what one would write without a closed form. A list in random order would have 5 % in its top 5 %.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.support.photos import usable_photos
from benchmarks.support.projects import HEAD_ONLY, describe_machine, features_in, run_stage, stages_folder
from regraft.features.label_errors import label_probabilities, rank_labels
from regraft.features.neighbours import Embeddings, embed
from regraft.features.table import Features

_FLIPPED, _TOP, _FOLDS = 0.02, 0.05, 5
_QUICK_PHOTOS = 400


def measure(folder: Path, seeds: int, *, photos: int | None) -> dict[str, Any]:
    """Plant and find wrong labels among the photos of a folder, all or some."""
    with tempfile.TemporaryDirectory(prefix="regraft-labels-") as temporary:
        raw = _some(folder, Path(temporary, "raw"), photos) if photos else folder
        project = stages_folder(Path(temporary, "project"), raw, HEAD_ONLY)
        for stage in ("validate_data", "preprocess", "cache_features"):
            run_stage(stage, project, log=Path(temporary, f"{stage}.log"))
        with features_in(project) as features:
            images = int((features.views == 0).sum())
            rounds = [_round(features, seed) for seed in range(seeds)]
    ours, theirs = ([each[name] for each in rounds] for name in ("recall", "baseline_recall"))
    return {
        "images": images,
        "recall_in_top_5_percent": ours,
        "mean_recall": round(float(np.mean(ours)), 3),
        "baseline_recall_in_top_5_percent": theirs,
        "baseline_mean_recall": round(float(np.mean(theirs)), 3),
        "likely": [each["likely"] for each in rounds],
        "flips_among_likely": [each["flips_among_likely"] for each in rounds],
        "seconds": round(float(np.mean([each["seconds"] for each in rounds])), 2),
        "baseline_seconds": round(float(np.mean([each["baseline_seconds"] for each in rounds])), 2),
    }


def _some(folder: Path, raw: Path, photos: int) -> Path:
    """Some photos of a folder, a folder per class."""
    for number, photo in enumerate(usable_photos(folder).head(photos).itertuples()):
        path = Path(str(photo.path))
        (raw / str(photo.class_name)).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, raw / str(photo.class_name) / f"{number}{path.suffix}")
    return raw


def _round(features: Features, seed: int) -> dict[str, Any]:
    """Exchange some labels, and look for them both ways."""
    random, classes = np.random.default_rng(seed), len(features.class_names)
    images = np.flatnonzero(features.views == 0)
    flipped = random.choice(len(images), round(_FLIPPED * len(images)), replace=False)
    labels = features.class_indices.copy()
    labels[images[flipped]] = (labels[images[flipped]] + random.integers(1, classes, len(flipped))) % classes
    start = time.perf_counter()
    embeddings = embed(replace(features, class_indices=labels))
    each = np.arange(len(embeddings))  # both leave out photos and not groups
    ranked = rank_labels(label_probabilities(embeddings, each), embeddings.class_indices, each)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    theirs = rank_labels(_cross_validated(embeddings), embeddings.class_indices, each)
    return {
        "seconds": seconds,
        "baseline_seconds": time.perf_counter() - start,
        "recall": _recall(flipped, ranked.row.to_numpy()),
        "baseline_recall": _recall(flipped, theirs.row.to_numpy()),
        "likely": int(ranked.likely.sum()),
        "flips_among_likely": int(np.isin(flipped, ranked.row[ranked.likely]).sum()),
    }


def _cross_validated(embeddings: Embeddings) -> np.ndarray:
    """Probabilities of classes from a logistic regression that has not seen the image."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    # Numbers of variance one, for which the penalty was chosen; points of length one have 1 / dim.
    points = embeddings.read(np.arange(len(embeddings))) * np.sqrt(embeddings.features.dim)
    with threadpool_limits(1, user_api="blas"):
        return cross_val_predict(
            LogisticRegression(C=0.01, max_iter=200),
            points,
            embeddings.class_indices,
            cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=0),
            method="predict_proba",
        )


def _recall(flipped: np.ndarray, ranked: np.ndarray) -> float:
    """The share of the flipped labels in the first 5 % of a list."""
    return round(float(np.isin(flipped, ranked[: round(_TOP * len(ranked))]).mean()), 3)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checks.label_errors",
        description="Wrong labels that are planted, and how many are found.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="labelled photos, as for data/raw")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK_PHOTOS} photos, one seed")
    arguments = parser.parse_args()
    seeds, photos = (1, _QUICK_PHOTOS) if arguments.quick else (arguments.seeds, None)
    result = measure(arguments.folder, seeds, photos=photos)
    print(describe_machine())
    print(f"{result['images']} photos, 2 % of the labels exchanged; share of them in the top 5 % of the list:")
    print(
        f"{'seed':>6} {'check_features':>15} {'5-fold logistic':>16} {'said to be likely':>18} {'of them flipped':>16}"
    )
    columns = ("recall_in_top_5_percent", "baseline_recall_in_top_5_percent", "likely", "flips_among_likely")
    for seed, (ours, theirs, likely, found) in enumerate(zip(*(result[name] for name in columns), strict=True)):
        print(f"{seed:>6} {ours:>15} {theirs:>16} {likely:>18} {found:>16}")
    print(f"{'mean':>6} {result['mean_recall']:>15} {result['baseline_mean_recall']:>16}")
    print(
        f"{result['seconds']} s against {result['baseline_seconds']} s: "
        f"{result['baseline_seconds'] / result['seconds']:.0f}x"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
