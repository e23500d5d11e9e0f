"""Leaks: photos of val and test that are nearly the same as one of train, or of val.

Of a large data set the photos of val and test that are looked at are a sample, and each is compared with every photo of
the splits before it. So nothing of a former run has to be known, and the time grows with the photos and not with their
square.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from regraft.features.neighbours import (
    NEIGHBOUR,
    NO_DISTANCE,
    Distances,
    Embeddings,
    distances_from,
    distances_of,
)
from regraft.photos.images import Threads

_AMONG, _ROWS = 8192, 256  # photos that are compared at a time: of the splits before, and of val and test
_MOST = 24  # others that are looked at, of a photo: the most similar ones
_CORES = 8  # at most: each holds some tens of megabytes
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
    looked at others are searched for, and of each at most the 24 that are most similar are named.

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
    blocks = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
    candidates = Threads(min(_CORES, Threads(0).count)).map(
        lambda block: _candidates(embeddings.reduced[block], along, half, radius[block]), blocks
    )
    for block, (found, places) in zip(blocks, candidates, strict=True):
        for first in range(0, len(found), _ROWS):
            each, of_pairs = np.unique(found[first : first + _ROWS], return_inverse=True)
            ones, others = block[each][of_pairs], among[places[first : first + _ROWS]]
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
    least = np.einsum("nd,nd->n", points, points) - (radius + NO_DISTANCE) ** 2 - _ROUNDING
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
