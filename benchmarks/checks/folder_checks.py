"""What the checks on a folder as it is say of healthy photos, for `benchmarks.checks.warnings`."""

import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.checks.warning_nights import Photos, whole_groups
from regraft.core.config import Params
from regraft.features.checks import (
    EXPECTED_LEAKS,
    MOST_LABEL_ERRORS,
    MOST_LEAKS,
    MOST_OUTLIERS,
    OUTLIER_DEVIATIONS,
)
from regraft.features.label_errors import label_probabilities, rank_labels
from regraft.features.neighbours import Embeddings, embed, find_leaks, measure_distances, outlier_distances
from regraft.features.table import Features, FileRows, OpenFile
from regraft.validation.checks import build_tables
from regraft.validation.limits import are_odd, calibrated
from regraft.validation.suite import read_suites

_SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
_COPIES = 50


def check_folder(
    params: Params, photos: Photos, copies: Photos, sizes: Mapping[str, float], draws: int
) -> Iterator[dict[str, Any]]:
    """Yield what warns, and the share of copies across splits that is found."""
    for size, share in sizes.items():
        for draw in range(draws):
            random = np.random.default_rng(draw)
            some = whole_groups(photos, share, random)
            yield {"size": size, **_checks(params, some, random), **_copies(params, photos, copies, random)}


def _checks(params: Params, photos: Photos, random: np.random.Generator) -> dict[str, Any]:
    groups = pd.factorize(photos.rows.group)[0]
    splits = random.choice(list(_SHARES), groups.max() + 1, p=list(_SHARES.values()))[groups]
    embeddings = _embedded(photos, splits)
    distances = measure_distances(embeddings, groups)
    leaks, _ = find_leaks(embeddings, groups, distances, EXPECTED_LEAKS)
    labels = _wrong_labels(embeddings, groups)
    outliers = (outlier_distances(distances) > OUTLIER_DEVIATIONS).mean()
    images = build_tables(photos.rows.assign(conflict=False), params.validate_data)["images"]
    suite = read_suites(params.paths.expectations)
    odd = are_odd(images, calibrated(images, suite))
    twice = len({row for row, _, _ in leaks}) / max(1, (splits != "train").sum())
    return {
        "leaks": twice > MOST_LEAKS,
        "pairs": len(leaks),
        "labels": labels > MOST_LABEL_ERRORS,
        "outliers": outliers > MOST_OUTLIERS,
        "odd": odd.mean() > 1 - next(each.arguments["mostly"] for each in suite if each.name == "few_odd_images"),
    }


def _copies(params: Params, photos: Photos, copies: Photos, random: np.random.Generator) -> dict[str, float]:
    """The share of copies in test that is found beside their photos in train."""
    some = copies.part(random.permutation(len(copies.rows))[:_COPIES])
    position = {digest: number for number, digest in enumerate(photos.rows.digest)}
    origins = [position[digest] for digest in some.rows.origin]
    together = Photos(pd.concat([photos.rows, some.rows]), np.concatenate([photos.features, some.features]))
    splits = np.array(["train"] * len(photos.rows) + ["test"] * len(origins))
    embeddings, groups = _embedded(together, splits), pd.factorize(together.rows.group)[0]
    distances = measure_distances(embeddings, groups)
    found = {(one, other) for one, other, _ in find_leaks(embeddings, groups, distances, EXPECTED_LEAKS)[0]}
    wanted = [(len(photos.rows) + number, origin) for number, origin in enumerate(origins)]
    return {"copies": float(np.mean([pair in found for pair in wanted]))}


def _wrong_labels(embeddings: Embeddings, groups: np.ndarray) -> float:
    return rank_labels(label_probabilities(embeddings, groups), embeddings.class_indices, groups).likely.mean()


def _embedded(photos: Photos, splits: np.ndarray) -> Embeddings:
    count, dim = photos.features.shape
    codes, names = pd.factorize(photos.rows.label, sort=True)
    with tempfile.NamedTemporaryFile() as file:
        file.write(np.ascontiguousarray(photos.features, np.float32).tobytes())
        file.flush()
        opened = OpenFile(file.name)  # it stays readable without its name
    features = Features(
        digests=[str(number) for number in range(count)],
        views=np.zeros(count, np.int16),
        splits=splits,
        class_indices=codes.astype(np.int32),
        class_names=[str(name) for name in names],
        namespace="",
        dim=dim,
        rows=FileRows(opened, np.arange(count) * dim * 4, dim),
    )
    return embed(features)
