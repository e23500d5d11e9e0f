"""Photos as points on the unit sphere: distances, outliers, and leaks between splits.

Neighbours are searched among the first principal components, and their similarity is then computed from the whole
features: figures are exact, and only the choice of candidates is an approximation. Leaks are photos of val and test
that are nearly the same as one of a split before. Each photo of the sample of val and test is compared with every photo
of the splits before it, so nothing of a former run is needed, and the time grows with the photos.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from regraft.features.table import Features
from regraft.photos.images import Threads

_ROWS = 512  # in memory at a time
_COMPONENTS = 128  # in which neighbours are searched
_CANDIDATES = 24  # whose similarity is computed from the whole features
_NEIGHBOUR = 5  # the one whose distance says how far a photo is from all others, and what is near there
_COMPARED_WITH = 16_384  # images at most, when asked how far a photo is from all others; an evenly spaced part of more
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
_NO_DISTANCE = 1e-3  # float32 cannot tell such points apart
_AMONG, _BLOCK = 8192, 256  # photos that are compared at a time: of the splits before, and of val and test
_MOST = 24  # others that are looked at, of a photo: the most similar ones
_CORES = 8  # at most: each holds some tens of megabytes
_ROUNDING = 1e-5  # of squared distances in float32


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
        """Return the same as `reduced` of any images, by their number among all."""
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
        groups: int, one for each image of the data set: equal for copies, near-duplicates and other related photos.
    """
    return distances_from(embeddings, groups, embeddings.looked_at)


def distances_from(embeddings: Embeddings, groups: np.ndarray, images: np.ndarray) -> Distances:
    """Return the same of any images, by their number among all: to those of other groups that are looked at."""
    of_rows = groups[embeddings.looked_at]
    each = np.sort(np.unique(of_rows, return_index=True)[1])
    among = each[np.linspace(0, len(each) - 1, min(len(each), _COMPARED_WITH)).astype(int)]
    neighbour = min(_NEIGHBOUR, max(1, len(among) - 1))
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
    (scaled to the deviation of a normal distribution). The logarithm, because distances have a long tail in folders of
    some dense and some loose kinds.
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


def _nearest(points: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """The places in `among` of the points that are nearest to each of `points`, int, shape (len(points), count)."""
    from sklearn.neighbors import NearestNeighbors  # a second, also for a flow that has nothing to do

    search = NearestNeighbors(n_neighbors=min(count, len(among)), algorithm="brute").fit(among)
    return search.kneighbors(points, return_distance=False)


def near_limit(distances: Distances, comparisons: int, expected: float) -> float:
    """Return the share of the distance to its fifth neighbour below which a photo is nearer than chance brings it.

    In m dimensions one of the five in a ball is within x of its radius with a chance of about 5 x^m, so of all pairs

        expected = comparisons * 5 / compared * x^m

    are that near by chance. The dimension m follows from the photos: the median of the distance of the nearest of five,
    as a share of that of the fifth, is (1 - 2^(-1/4))^(1/m), whatever copies there are, as long as most have none.

    Source: the model is that of Levina & Bickel, "Maximum likelihood estimation of intrinsic dimension", NIPS 2004.
    """
    apart = distances.fifth > 0
    usual = float(np.median(distances.first[apart] / distances.fifth[apart])) if apart.any() else 1.0
    dimension = np.log(1 - 0.5 ** (1 / (_NEIGHBOUR - 1))) / np.log(np.clip(usual, 1e-6, 1 - 1e-6))
    chance = expected * distances.compared / (_NEIGHBOUR * max(1, comparisons))
    return float(min(1.0, chance) ** (1 / dimension))


def find_leaks(
    embeddings: Embeddings, groups: np.ndarray, distances: Distances, expected: float
) -> tuple[list[tuple[int, int, float]], float]:
    """Return pairs of images in different splits that are nearly the same, and the limit that they are below.

    Images of val are compared with all of train, those of test with all of train and val. Only of images that are
    looked at others are searched for, and of each at most the 24 that are most similar are named.

    Returns:
        Number of the held-out image among all, of the other one, and cosine similarity, the most similar pair first;
        and the limit from `near_limit`.
    """
    of_rows, of_all = embeddings.splits, embeddings.features.splits[embeddings.everything]
    searched = [
        (np.flatnonzero(np.isin(of_rows, later)), np.flatnonzero(of_all == split))
        for split, later in (("train", ["val", "test"]), ("val", ["test"]))
    ]
    searched = [(rows, among) for rows, among in searched if len(rows)]
    limit = near_limit(distances, sum(len(rows) * len(among) for rows, among in searched), expected)
    pairs = _near_pairs(embeddings, searched, limit * distances.fifth)
    fifth = np.full(len(of_all), np.nan)
    fifth[embeddings.looked_at] = distances.fifth
    unknown = np.unique(pairs.others[np.isnan(fifth[pairs.others])])
    if len(unknown):
        fifth[unknown] = distances_from(embeddings, groups, unknown).fifth
    usual = np.minimum(distances.fifth[pairs.rows], fifth[pairs.others])
    found = pairs.take(distances_of(pairs.similarities) <= limit * usual)
    columns = embeddings.looked_at[found.rows], found.others, found.similarities
    leaks = list(zip(*(column.tolist() for column in columns), strict=True))
    return sorted(leaks, key=lambda leak: (-round(leak[2], 4), leak)), limit


@dataclass(frozen=True, slots=True)
class _Pairs:
    rows: np.ndarray  # int, (n,)
    others: np.ndarray  # int, (n,): by their number among all
    similarities: np.ndarray  # float32, (n,)

    def take(self, chosen: np.ndarray) -> "_Pairs":
        """Return some of them."""
        return _Pairs(self.rows[chosen], self.others[chosen], self.similarities[chosen])

    def most_similar(self) -> "_Pairs":
        """Return so many of each row as are looked at, row by row, the most similar first."""
        ordered = self.take(np.lexsort((self.others, -self.similarities, self.rows)))
        ranks = np.arange(len(ordered.rows)) - np.searchsorted(ordered.rows, ordered.rows)
        return ordered.take(ranks < _MOST)


def _near_pairs(embeddings: Embeddings, searched: list[tuple[np.ndarray, np.ndarray]], radius: np.ndarray) -> _Pairs:
    """Return rows and what is within their radius of those that they are compared with, the most similar ones."""
    radius, nothing = radius.copy(), np.zeros(0, int)
    pairs = _Pairs(nothing, nothing, np.zeros(0, np.float32))
    with threadpool_limits(1, user_api="blas"):
        for rows, among in searched:
            for start in range(0, len(among), _AMONG):
                new = [pairs, *_near(embeddings, rows, among[start : start + _AMONG], radius)]
                if len(new) > 1:
                    columns = ([getattr(each, name) for each in new] for name in ("rows", "others", "similarities"))
                    pairs = _Pairs(*map(np.concatenate, columns)).most_similar()
                    # Where there are enough, what is farther than the last one is looked for no more.
                    last = np.flatnonzero(np.bincount(pairs.rows, minlength=len(radius))[pairs.rows] == _MOST)
                    last = last[_MOST - 1 :: _MOST]
                    radius[pairs.rows[last]] = distances_of(pairs.similarities[last])
    return pairs


def _near(embeddings: Embeddings, rows: np.ndarray, among: np.ndarray, radius: np.ndarray) -> Iterator[_Pairs]:
    """Yield rows and other images within their radius; of each row at most those nearest to it along the axes.

    Along some of the axes two points are never farther from each other than along all: none is lost there.
    """
    along = embeddings.along_axes(among)
    half = np.einsum("nd,nd->n", along, along) / 2
    blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    candidates = Threads(min(_CORES, Threads(0).count)).map(
        lambda block: _candidates(embeddings.reduced[block], along, half, radius[block]), blocks
    )
    for block, (found, places) in zip(blocks, candidates, strict=True):
        for first in range(0, len(found), _BLOCK):
            each, of_pairs = np.unique(found[first : first + _BLOCK], return_inverse=True)
            ones, others = block[each][of_pairs], among[places[first : first + _BLOCK]]
            points_of = embeddings.read(block[each])[of_pairs]
            similarities = np.einsum("nd,nd->n", points_of, embeddings.points_of(others))
            within = distances_of(similarities) <= radius[ones]
            if within.any():
                yield _Pairs(ones, others, similarities).take(within)


def _candidates(
    points: np.ndarray, along: np.ndarray, half: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which points may have which others within their radius, as far as the axes tell: two of int, (n,)."""
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b is at most the squared radius.
    least = np.einsum("nd,nd->n", points, points) - (radius + _NO_DISTANCE) ** 2 - _ROUNDING
    nearness = points @ along.T
    nearness -= half
    is_near = nearness >= least[:, None].astype(np.float32) / 2
    crowded = np.flatnonzero(np.count_nonzero(is_near, axis=1) > _MOST)
    if len(crowded):
        nearest = np.argpartition(nearness[crowded], -_MOST, axis=1)[:, -_MOST:]
        is_near[crowded] = False
        is_near[crowded[:, None], nearest] = True
    found, places = np.nonzero(is_near)
    return found, places
