"""Leaks: photos of val and test that are nearly the same as one of train, or of val.

Of a large data set the photos of val and test that are looked at are a sample, and each is compared with every photo of
the splits before it. So nothing of a former run has to be known, and the time grows with the photos and not with their
square.
"""

from collections.abc import Iterator

import numpy as np

from regraft.features.neighbours import (
    NEIGHBOUR,
    NO_DISTANCE,
    Distances,
    Embeddings,
    distances_from,
    distances_of,
)

_AMONG, _ROWS = 8192, 512  # photos that are compared at a time: of the splits before, and of val and test
_MOST = 24  # pairs after which no more are looked for, of a photo
_ROUNDING = 1e-5  # of squared distances in float32


def near_limit(distances: Distances, comparisons: int, expected: float) -> float:
    """Return from which share of the distance to its fifth neighbour a photo is nearer than chance brings it.

    Photos of different things lie around a photo as points of m dimensions do: of the five in a ball, one is within x
    of its radius with a chance of about 5 x^m. So of all pairs that are compared about

        expected = comparisons * 5 / compared * x^m

    are that near by chance. The dimension m is that of these features and these photos: the nearest of five has half of
    the time no more than (1 - 2^(-1/4))^(1/m) of the distance of the fifth. The median is the same whatever copies
    there are, as long as most photos have none.

    Args:
        distances: of all images.
        comparisons: pairs of images that are compared.
        expected: pairs that may be named where there is none that shows the same thing.

    Source: the model is that of Levina & Bickel, "Maximum likelihood estimation of intrinsic dimension", NIPS 2004.
    """
    apart = distances.fifth > 0
    usual = float(np.median(distances.first[apart] / distances.fifth[apart])) if apart.any() else 1.0
    dimension = np.log(1 - 0.5 ** (1 / (NEIGHBOUR - 1))) / np.log(np.clip(usual, 1e-6, 1 - 1e-6))
    chance = expected * distances.compared / (NEIGHBOUR * max(1, comparisons))
    return float(min(1.0, chance) ** (1 / dimension))


def find_leaks(
    embeddings: Embeddings, groups: np.ndarray, distances: Distances, expected: float
) -> tuple[list[tuple[int, int, float]], float]:
    """Return pairs of images in different splits that are nearly the same, and the limit that they are below.

    Images of val are compared with all of train, those of test with all of train and val. Only of images that are
    looked at others are searched for.

    Args:
        embeddings: of the data set.
        groups: as for `measure_distances`.
        distances: from there.
        expected: pairs that chance may name where there is no leak.

    Returns:
        Number of the held-out image among all, of the other one, and cosine similarity, the most similar pair first;
        and the limit of `near_limit`, which their distance stays below as a share of that to the fifth neighbour of
        either.
    """
    of_rows, of_all = embeddings.splits, embeddings.features.splits[embeddings.everything]
    searched = [
        (np.flatnonzero(np.isin(of_rows, later)), np.flatnonzero(of_all == split))
        for split, later in (("train", ["val", "test"]), ("val", ["test"]))
    ]
    searched = [(rows, among) for rows, among in searched if len(rows)]
    limit = near_limit(distances, sum(len(rows) * len(among) for rows, among in searched), expected)
    radius = limit * distances.fifth
    fifth = np.full(len(of_all), np.nan)
    fifth[embeddings.looked_at] = distances.fifth
    leaks: list[tuple[int, int, float]] = []
    counts = np.zeros(len(embeddings), int)
    for rows, among in searched:
        for start in range(0, len(among), _AMONG):
            for ones, others, similarities in _near(embeddings, rows, among[start : start + _AMONG], radius, counts):
                unknown = np.unique(others[np.isnan(fifth[others])])
                if len(unknown):
                    fifth[unknown] = distances_from(embeddings, groups, unknown).fifth
                is_leak = distances_of(similarities) <= limit * np.minimum(distances.fifth[ones], fifth[others])
                counts += np.bincount(ones[is_leak], minlength=len(counts))
                pairs = (embeddings.looked_at[ones], others, similarities)
                leaks += zip(*(each[is_leak].tolist() for each in pairs), strict=True)
    return sorted(leaks, key=lambda leak: (-round(leak[2], 4), leak)), limit


def _near(
    embeddings: Embeddings, rows: np.ndarray, among: np.ndarray, radius: np.ndarray, counts: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield rows, other images within their radius, and the similarity of each pair.

    Along some of the axes two points are never farther from each other than along all: none is lost there.
    """
    along = embeddings.along_axes(among)
    half = np.einsum("nd,nd->n", along, along) / 2
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        block = block[counts[block] < _MOST]
        points = embeddings.reduced[block]
        # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b is at most the squared radius.
        least = np.einsum("nd,nd->n", points, points) - (radius[block] + NO_DISTANCE) ** 2 - _ROUNDING
        found, places = np.nonzero(points @ along.T - half >= least[:, None].astype(np.float32) / 2)
        for first in range(0, len(found), _ROWS):
            ones, others = block[found[first : first + _ROWS]], among[places[first : first + _ROWS]]
            similarities = np.einsum("nd,nd->n", embeddings.read(ones), embeddings.points_of(others))
            is_near = distances_of(similarities) <= radius[ones]
            if is_near.any():
                yield ones[is_near], others[is_near], similarities[is_near]
