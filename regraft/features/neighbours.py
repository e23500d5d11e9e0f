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
_NEIGHBOUR = 5  # the one whose distance says how far a photo is from all others, and what is near there
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
    """How far every image of a data set is from those of other groups."""

    first: np.ndarray  # float64, (n,): distance to the nearest one
    fifth: np.ndarray  # float64, (n,): distance to the fifth one
    compared: int  # images, one per group, among which the five were searched


def measure_distances(embeddings: Embeddings, groups: np.ndarray) -> Distances:
    """Find the neighbours of every image among one image of every other group.

    Args:
        embeddings: of the data set.
        groups: int, shape (n,): equal for copies, near-duplicates and what else belongs together.
    """
    each = np.sort(np.unique(groups, return_index=True)[1])
    among = each[np.linspace(0, len(each) - 1, min(len(each), _COMPARED_WITH)).astype(int)]
    neighbour = min(_NEIGHBOUR, max(1, len(among) - 1))
    compared, similarities = embeddings.read(among), np.empty((len(embeddings), neighbour), np.float32)
    # Places in `among`, so that points are found in `compared`. One of the candidates may be of the image's own group.
    found, _ = _candidates(embeddings, np.arange(len(embeddings)), among, _CANDIDATES + 1)
    places = np.searchsorted(among, found)
    for rows, points in embeddings.blocks():
        products = np.einsum("nd,nkd->nk", points, compared[places[rows]])
        products[groups[found[rows]] == groups[rows][:, None]] = -1
        similarities[rows] = -np.partition(-products, range(neighbour), axis=1)[:, :neighbour]
    return Distances(distances_of(similarities[:, 0]), distances_of(similarities[:, -1]), len(among))


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
    dimension = np.log(1 - 0.5 ** (1 / (_NEIGHBOUR - 1))) / np.log(np.clip(usual, 1e-6, 1 - 1e-6))
    chance = expected * distances.compared / (_NEIGHBOUR * max(1, comparisons))
    return float(min(1.0, chance) ** (1 / dimension))


def find_leaks(
    embeddings: Embeddings, distances: Distances, expected: float
) -> tuple[list[tuple[int, int, float]], float]:
    """Return pairs of images in different splits that are nearly the same, and the limit that they are below.

    Val is compared with train, and test with both: for every image there, the most similar ones.

    Args:
        embeddings: of the data set.
        distances: from `measure_distances`.
        expected: pairs that chance may name where there is no leak.

    Returns:
        Held-out row, other row and cosine similarity of each pair, the most similar first; and the limit of
        `near_limit`, which their distance stays below as a share of that to the fifth neighbour of either.
    """
    splits, leaks, searched = embeddings.splits, [], []
    for split, before in (("val", ["train"]), ("test", ["train", "val"])):
        rows, among = np.flatnonzero(splits == split), np.flatnonzero(np.isin(splits, before))
        if len(rows) and len(among):
            searched.append((rows, among))
    limit = near_limit(distances, sum(len(rows) * len(among) for rows, among in searched), expected)
    for rows, among in searched:
        found, along_axes = _candidates(embeddings, rows, among, _CANDIDATES)
        # Along some of the axes two points are never farther from each other than along all: no leak is lost here.
        near = np.argwhere(along_axes <= limit * distances.fifth[rows][:, None] + _NO_DISTANCE)
        for start in range(0, len(near), _ROWS):
            index, rank = near[start : start + _ROWS].T
            ones, others = rows[index], found[index, rank]
            similarities = np.einsum("nd,nd->n", embeddings.read(ones), embeddings.read(others))
            usual = np.minimum(distances.fifth[ones], distances.fifth[others])
            is_leak = distances_of(similarities) <= limit * usual
            pairs = zip(ones.tolist(), others.tolist(), similarities.tolist(), strict=True)
            leaks += [pair for pair, counts in zip(pairs, is_leak.tolist(), strict=True) if counts]
    return sorted(leaks, key=lambda leak: (-round(leak[2], 4), leak)), limit


def outlier_distances(distances: Distances) -> np.ndarray:
    """Return how far each image is from all others, in deviations from the usual: float64, shape (n,).

    It is the logarithm of the distance to the fifth neighbour, less its median, over its median absolute deviation
    (scaled to the deviation of a normal distribution). Both are the same whatever the outliers are, and no fixed share
    is far. As a logarithm, because distances themselves have a long tail in folders of some dense and some loose kinds.
    """
    scaled = np.log(np.maximum(distances.fifth, _NO_DISTANCE))
    from_median = scaled - np.median(scaled)
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
