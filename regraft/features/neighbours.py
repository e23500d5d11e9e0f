"""Photos as points: what their frozen features say about leaks between splits and outliers.

A feature of length one is a point, and the cosine of two of them says how alike two photos look to the backbone.
Neighbours are searched among the first principal components and their similarity is then computed from the whole
features, so that a figure that is reported is exact and only who is compared with whom is an approximation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from regraft.features.table import Features

_ROWS = 512  # in memory at a time
_COMPONENTS = 128  # in which neighbours are searched
_CANDIDATES = 24  # whose similarity is computed from the whole features
_NEIGHBOUR = 5  # the one whose distance says how far a photo is from all others
_COMPARED_WITH = 16_384  # images at most, when asked how far a photo is from all others; an evenly spaced part of more
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
_NO_DISTANCE = 1e-3  # float32 cannot tell such points apart


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The unchanged view of every image of a data set, as points; made by `embed`."""

    features: Features
    positions: np.ndarray  # of the unchanged views in the file
    mean: np.ndarray  # float64, (dim,)
    variances: np.ndarray  # float64, (dim,): sums of squares along the axes, the largest first
    axes: np.ndarray  # float64, (dim, dim): a column per principal axis
    reduced: np.ndarray  # float32, (n, at most 128): the points along the first axes, from their mean

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def splits(self) -> np.ndarray:
        """The split of each image."""
        return self.features.splits[self.positions]

    @property
    def class_indices(self) -> np.ndarray:
        """The class of each image."""
        return self.features.class_indices[self.positions]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the points of some images: float32, shape (len(rows), dim), of length one."""
        return unit_length(self.features.read(self.positions[rows]))

    def blocks(self, rows: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows, all or some, and their points, some hundreds at a time."""
        rows = np.arange(len(self)) if rows is None else rows
        for start in range(0, len(rows), _ROWS):
            yield rows[start : start + _ROWS], self.read(rows[start : start + _ROWS])


def embed(features: Features) -> Embeddings:
    """Find the principal axes of the unchanged views, and the points' places along the first of them."""
    positions = np.flatnonzero(features.views == 0)
    nothing = np.zeros(0)
    turned = Embeddings(features, positions, nothing, nothing, nothing, nothing)
    total, products = np.zeros(features.dim), np.zeros((features.dim, features.dim))
    # A sum of products by a single thread is the same on any number of cores.
    with threadpool_limits(1, user_api="blas"):
        for _, points in turned.blocks():
            total += points.sum(axis=0, dtype=np.float64)
            products += points.T @ points
        mean = total / len(positions)
        variances, axes = np.linalg.eigh(products - len(positions) * np.outer(mean, mean))
        variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1]
        first = axes[:, :_COMPONENTS].astype(np.float32)
        reduced = np.empty((len(positions), first.shape[1]), np.float32)
        for rows, points in turned.blocks():
            reduced[rows] = (points - mean.astype(np.float32)) @ first
    return Embeddings(features, positions, mean, variances, axes, reduced)


@dataclass(frozen=True, slots=True)
class Distances:
    """How far every image of a data set is from the others."""

    fifth: np.ndarray  # float64, (n,): distance to the fifth neighbour
    around: np.ndarray  # float64, (n,): what `fifth` usually is there, the median of the nearest images'


def measure_distances(embeddings: Embeddings) -> Distances:
    """Find the neighbours of every image."""
    every = np.arange(len(embeddings))
    among = np.linspace(0, len(every) - 1, min(len(every), _COMPARED_WITH)).astype(int)
    compared, similarities = embeddings.read(among), np.empty(len(every), np.float32)
    # Places in `among`, so that points are found in `compared`. One of the candidates may be the image itself.
    found, _ = _candidates(embeddings, every, among, _CANDIDATES + 1)
    places = np.searchsorted(among, found)
    for rows, points in embeddings.blocks():
        products = np.einsum("nd,nkd->nk", points, compared[places[rows]])
        products[found[rows] == rows[:, None]] = -np.inf
        neighbour = min(_NEIGHBOUR, max(1, len(among) - 1))
        similarities[rows] = -np.partition(-products, neighbour - 1, axis=1)[:, neighbour - 1]
    fifth = distances_of(similarities)
    return Distances(fifth, np.median(fifth[found], axis=1))


def find_leaks(
    embeddings: Embeddings, distances: Distances, *, min_similarity: float, max_distance: float
) -> list[tuple[int, int, float]]:
    """Return pairs of images in different splits that are nearly the same: held-out row, other row, similarity.

    Val is compared with train, and test with both: for every image there, the most similar ones.

    Args:
        embeddings: of the data set.
        distances: from `measure_distances`.
        min_similarity: cosine similarity from which two images may count as one.
        max_distance: largest distance of such a pair, in units of what is usual around either image: where all are
            alike, no similarity says anything by itself.
    """
    splits, leaks = embeddings.splits, []
    for split, before in (("val", ["train"]), ("test", ["train", "val"])):
        rows, among = np.flatnonzero(splits == split), np.flatnonzero(np.isin(splits, before))
        if not len(rows) or not len(among):
            continue
        found, along_axes = _candidates(embeddings, rows, among, _CANDIDATES)
        # Along some of the axes two points are never farther from each other than along all: no leak is lost here.
        near = np.argwhere(along_axes <= np.sqrt(2 - 2 * min_similarity) + _NO_DISTANCE)
        for start in range(0, len(near), _ROWS):
            index, rank = near[start : start + _ROWS].T
            ones, others = rows[index], found[index, rank]
            similarities = np.einsum("nd,nd->n", embeddings.read(ones), embeddings.read(others))
            usual = np.minimum(distances.around[ones], distances.around[others])
            is_leak = (similarities >= min_similarity) & (distances_of(similarities) <= max_distance * usual)
            pairs = zip(ones.tolist(), others.tolist(), similarities.tolist(), strict=True)
            leaks += [pair for pair, counts in zip(pairs, is_leak.tolist(), strict=True) if counts]
    return sorted(leaks, key=lambda leak: (-round(leak[2], 4), leak))


def outlier_distances(distances: Distances) -> np.ndarray:
    """Return how far each image is from all others, in deviations from the usual: float64, shape (n,).

    It is the distance to the fifth neighbour, less its median, over its median absolute deviation (scaled to the
    deviation of a normal distribution). Both are the same whatever the outliers are, and no fixed share is far.
    """
    from_median = distances.fifth - np.median(distances.fifth)
    deviation = _MAD_TO_DEVIATION * np.median(np.abs(from_median))
    return from_median / deviation if deviation > _NO_DISTANCE else np.zeros(len(from_median))


def unit_length(features: np.ndarray) -> np.ndarray:
    """Return features as points of length one: float32, shape (n, dim); zeros stay zeros."""
    from sklearn.preprocessing import normalize

    return normalize(features.astype(np.float32, copy=False))


def distances_of(similarities: np.ndarray) -> np.ndarray:
    """Return the distances of points on the unit sphere, float64: |a - b|^2 = 2 - 2 a.b."""
    distances = np.sqrt(np.maximum(0, 2 - 2 * similarities.astype(np.float64)))
    return np.where(distances < _NO_DISTANCE, 0, distances)


def _candidates(
    embeddings: Embeddings, rows: np.ndarray, among: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of `among` to each of `rows` along the first axes: rows of the data set, and distances there."""
    from sklearn.neighbors import NearestNeighbors  # a second, also for a flow that has nothing to do

    search = NearestNeighbors(n_neighbors=min(count, len(among)), algorithm="brute").fit(embeddings.reduced[among])
    distances, places = search.kneighbors(embeddings.reduced[rows])
    return among[places], distances
