"""Photos as points: how far they are from each other, and which are outliers.

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
NEIGHBOUR = 5  # the one whose distance says how far a photo is from all others, and what is near there
_COMPARED_WITH = 16_384  # images at most, when asked how far a photo is from all others; an evenly spaced part of more
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
NO_DISTANCE = 1e-3  # float32 cannot tell such points apart


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The unchanged view of the images of a data set that are looked at, as points; made by `embed`."""

    features: Features
    everything: np.ndarray  # positions of the unchanged views of all images in the file
    looked_at: np.ndarray  # which of all images these are, in order
    mean: np.ndarray  # float64, (dim,)
    variances: np.ndarray  # float64, (dim,): sums of squares along the axes, the largest first
    axes: np.ndarray  # float64, (dim, dim): a column per principal axis
    reduced: np.ndarray  # float32, (n, at most 128): the points along the first axes, from their mean

    def __len__(self) -> int:
        return len(self.looked_at)

    @property
    def positions(self) -> np.ndarray:
        """Where in the file the image of each row is."""
        return self.everything[self.looked_at]

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
        return self.points_of(self.looked_at[rows])

    def points_of(self, images: np.ndarray) -> np.ndarray:
        """Return the same of any images, by their number among all."""
        return unit_length(self.features.read(self.everything[images]))

    def along_axes(self, images: np.ndarray) -> np.ndarray:
        """Return what `reduced` has of any images, by their number among all."""
        first, mean = self.axes[:, : self.reduced.shape[1]].astype(np.float32), self.mean.astype(np.float32)
        parts = [images[start : start + _ROWS] for start in range(0, len(images), _ROWS)]
        return np.concatenate([(self.points_of(part) - mean) @ first for part in parts])

    def blocks(self, rows: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows, all or some, and their points, some hundreds at a time."""
        rows = np.arange(len(self)) if rows is None else rows
        for start in range(0, len(rows), _ROWS):
            yield rows[start : start + _ROWS], self.read(rows[start : start + _ROWS])


def embed(features: Features, looked_at: np.ndarray | None = None) -> Embeddings:
    """Find the principal axes of the unchanged views, and the points' places along the first of them.

    Args:
        features: of a data set.
        looked_at: numbers of the images that are looked at, in order; None: all.
    """
    everything = np.flatnonzero(features.views == 0)
    rows = np.arange(len(everything)) if looked_at is None else looked_at
    nothing = np.zeros(0)
    turned = Embeddings(features, everything, rows, nothing, nothing, nothing, nothing)
    total, products = np.zeros(features.dim), np.zeros((features.dim, features.dim))
    # A sum of products by a single thread is the same on any number of cores.
    with threadpool_limits(1, user_api="blas"):
        for _, points in turned.blocks():
            total += points.sum(axis=0, dtype=np.float64)
            products += points.T @ points
        mean = total / len(turned)
        variances, axes = np.linalg.eigh(products - len(turned) * np.outer(mean, mean))
        variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1]
        first = axes[:, :_COMPONENTS].astype(np.float32)
        reduced = np.empty((len(turned), first.shape[1]), np.float32)
        for block, points in turned.blocks():
            reduced[block] = (points - mean.astype(np.float32)) @ first
    return Embeddings(features, everything, rows, mean, variances, axes, reduced)


@dataclass(frozen=True, slots=True)
class Distances:
    """How far images are from those of other groups."""

    first: np.ndarray  # float64, (n,): distance to the nearest one
    fifth: np.ndarray  # float64, (n,): distance to the fifth one
    compared: int  # images, one per group, among which the five were searched


def measure_distances(embeddings: Embeddings, groups: np.ndarray) -> Distances:
    """Find the neighbours of every image that is looked at among one image of every other group.

    Args:
        embeddings: of the data set.
        groups: int, one for each image of the data set: equal for copies, near-duplicates and what else belongs
            together.
    """
    return distances_from(embeddings, groups, embeddings.looked_at)


def distances_from(embeddings: Embeddings, groups: np.ndarray, images: np.ndarray) -> Distances:
    """Return the same of any images, by their number among all: to those of other groups that are looked at."""
    of_rows = groups[embeddings.looked_at]
    each = np.sort(np.unique(of_rows, return_index=True)[1])
    among = each[np.linspace(0, len(each) - 1, min(len(each), _COMPARED_WITH)).astype(int)]
    neighbour = min(NEIGHBOUR, max(1, len(among) - 1))
    compared, similarities = embeddings.read(among), np.empty((len(images), neighbour), np.float32)
    along = embeddings.reduced if images is embeddings.looked_at else embeddings.along_axes(images)
    # One of the candidates may be of the image's own group.
    places = _nearest(along, embeddings.reduced[among], _CANDIDATES + 1)
    for start in range(0, len(images), _ROWS):
        block, found = images[start : start + _ROWS], places[start : start + _ROWS]
        products = np.einsum("nd,nkd->nk", embeddings.points_of(block), compared[found])
        products[of_rows[among[found]] == groups[block][:, None]] = -1
        similarities[start : start + _ROWS] = -np.partition(-products, range(neighbour), axis=1)[:, :neighbour]
    return Distances(distances_of(similarities[:, 0]), distances_of(similarities[:, -1]), len(among))


def outlier_distances(distances: Distances) -> np.ndarray:
    """Return how far each image is from all others, in deviations from the usual: float64, shape (n,).

    It is the logarithm of the distance to the fifth neighbour, less its median, over its median absolute deviation
    (scaled to the deviation of a normal distribution). Both are the same whatever the outliers are, and no fixed share
    is far. As a logarithm, because distances themselves have a long tail in folders of some dense and some loose kinds.
    """
    scaled = np.log(np.maximum(distances.fifth, NO_DISTANCE))
    from_median = scaled - np.median(scaled)
    deviation = _MAD_TO_DEVIATION * np.median(np.abs(from_median))
    return from_median / deviation if deviation > NO_DISTANCE else np.zeros(len(from_median))


def unit_length(features: np.ndarray) -> np.ndarray:
    """Return features as points of length one: float32, shape (n, dim); zeros stay zeros."""
    from sklearn.preprocessing import normalize

    return normalize(features.astype(np.float32, copy=False))


def distances_of(similarities: np.ndarray) -> np.ndarray:
    """Return the distances of points on the unit sphere, float64: |a - b|^2 = 2 - 2 a.b."""
    distances = np.sqrt(np.maximum(0, 2 - 2 * similarities.astype(np.float64)))
    return np.where(distances < NO_DISTANCE, 0, distances)


def _nearest(points: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """The places in `among` of the points that are nearest to each of `points`, int, shape (len(points), count)."""
    from sklearn.neighbors import NearestNeighbors  # a second, also for a flow that has nothing to do

    search = NearestNeighbors(n_neighbors=min(count, len(among)), algorithm="brute").fit(among)
    return search.kneighbors(points, return_distance=False)
