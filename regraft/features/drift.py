"""Drift: how far new photos are from those that the model in production was trained on.

New photos are compared with what fresh photos of the same folder would show: the reference is divided at random, and
the distances of both the new photos and one half are taken from the other half. Without drift the two samples are alike
and, given that other half, independent.

A distance is that to the fifth neighbour, over what this distance usually is there. So a batch of one class, where the
reference has all, seems strange as little as possible, and so do photos of a session that the reference has none of.
"""

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from regraft.features.neighbours import distances_of, unit_length
from regraft.validation.drift import population_stability_index, psi_by_chance

_ROWS = 1024  # in memory at a time
_BINS = 10
_AXES = 32  # along which a shift is looked for
_FAR = 0.01  # share of the reference photos that count as far from the others
_LEAST_REFERENCE, _LEAST_NEW = 50, 20  # photos from which drift can be told from chance
_NEIGHBOUR = 5
_FIGURES = 3  # each has its part of the chance of a false alarm (Bonferroni)
_NO_DISTANCE = 1e-3  # float32 cannot tell such points apart
_NO_VARIANCE = 1e-6  # of the largest variance along an axis: noise of float32


@dataclass(frozen=True, slots=True)
class Drift:
    """Three figures, 0 where nothing has changed, each with the limit that chance seldom exceeds."""

    reference: int  # photos
    new: int
    population_stability: float  # whether new photos are farther from the reference, or nearer, than a half of it
    population_stability_limit: float
    far_share: float  # of the new photos: farther from the reference than 99 % of that half
    far_share_limit: float
    shift: float  # whether new photos differ from the reference photos that are most like them all in the same way
    shift_limit: float

    @property
    def is_drift(self) -> bool:
        """Whether any figure is more than chance."""
        return (
            self.population_stability > self.population_stability_limit
            or self.far_share > self.far_share_limit
            or self.shift > self.shift_limit
        )


def measure_drift(reference: np.ndarray | None, new: np.ndarray, significance: float) -> Drift | None:
    """Compare the distances of new photos from one half of the reference with those of the other half, and directions.

    The population stability index is summed over the deciles of the reference's distances: without drift about
    (1/n + 1/m) times a chi-square of nine degrees of freedom (Yurdakul, "Statistical properties of the population
    stability index", 2018), for n photos of a half and m new ones. How many of m new photos are farther than the j-th
    farthest of n is a beta-binomial variable, whatever the distribution. The shift is Hotelling's two-sample T-square
    of the differences to the nearest photo of the whole reference, along its first principal axes, as the F variable
    that it is without drift.

    Args:
        reference: features of what the model in production was trained on, shape (n, dim); None if there is none.
        new: features of the photos that are new since, from the same backbone, shape (m, dim).
        significance: the chance of any alarm without drift, all three figures together.

    Returns:
        None without a reference, and if there are too few photos to tell.
    """
    if reference is None or len(reference) < _LEAST_REFERENCE or len(new) < _LEAST_NEW:
        return None
    from scipy.linalg import eigh
    from scipy.stats import betabinom, f

    known, fresh, chance = unit_length(reference), unit_length(new), significance / _FIGURES
    order = np.random.default_rng(0).permutation(len(known))
    held_out, others = known[order[::2]], known[order[1::2]]
    n, m = len(held_out), len(fresh)
    with threadpool_limits(1, user_api="blas"):
        usual = _neighbours(others, others, is_same=True)[0]
        before, after = (_unlikeness(points, others, usual) for points in (held_out, fresh))
        from_nearest = known - known[_neighbours(known, known, is_same=True)[1][:, 0]]
        fresh_from_nearest = fresh - known[_neighbours(fresh, known, is_same=False)[1][:, 0]]
        centred, dim = known - known.mean(axis=0), known.shape[1]
        first = max(0, dim - min(_AXES, m // 2))  # they come with the smallest variance first
        axes = eigh(centred.T @ centred, subset_by_index=(first, dim - 1))[1]
        shift, degrees = _hotelling(from_nearest @ axes, fresh_from_nearest @ axes)
    edges = np.quantile(before, np.linspace(0, 1, _BINS + 1)[1:-1])
    then, now = (np.bincount(np.searchsorted(edges, values), minlength=_BINS) for values in (before, after))
    rank = max(1, round(_FAR * n))
    return Drift(
        reference=len(known),
        new=m,
        population_stability=population_stability_index(then, now),
        population_stability_limit=psi_by_chance(_BINS, n, m, chance),
        far_share=float(np.mean(after > np.sort(before)[-rank])),
        far_share_limit=float(betabinom.isf(chance, m, rank, n - rank + 1) / m),
        shift=shift,
        shift_limit=float(f.isf(chance, degrees, len(known) + m - 1 - degrees)) if degrees else 0.0,
    )


def _unlikeness(points: np.ndarray, among: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """How far points are from their fifth neighbour, over what is usual there: float64, shape (n,), about 1."""
    distances, nearest = _neighbours(points, among, is_same=False)
    return distances / np.maximum(usual[nearest].mean(axis=1), _NO_DISTANCE)


def _neighbours(points: np.ndarray, among: np.ndarray, *, is_same: bool) -> tuple[np.ndarray, np.ndarray]:
    """The distance of each point to its fifth neighbour, float64, and the five, the nearest first."""
    similarities, nearest = np.empty(len(points), np.float32), np.empty((len(points), _NEIGHBOUR), np.int64)
    for start in range(0, len(points), _ROWS):
        block = points[start : start + _ROWS] @ among.T
        if is_same:
            block[np.arange(len(block)), start + np.arange(len(block))] = -2  # below any cosine
        places = np.argpartition(-block, _NEIGHBOUR - 1, axis=1)[:, :_NEIGHBOUR]
        found = np.take_along_axis(block, places, axis=1)
        by_similarity = np.argsort(-found, axis=1, kind="stable")
        nearest[start : start + _ROWS] = np.take_along_axis(places, by_similarity, axis=1)
        similarities[start : start + _ROWS] = found.min(axis=1)
    return distances_of(similarities), nearest


def _hotelling(ones: np.ndarray, others: np.ndarray) -> tuple[float, int]:
    """Hotelling's two-sample T-square as an F variable, and its degrees of freedom d; the others are n + m - 1 - d.

    Directions without any variance say nothing and are left out.
    """
    n, m = len(ones), len(others)
    ones, others = ones.astype(np.float64), others.astype(np.float64)
    spread = (np.cov(ones.T) * (n - 1) + np.cov(others.T) * (m - 1)) / (n + m - 2)
    variances, directions = np.linalg.eigh(np.atleast_2d(spread))
    used = variances > max(_NO_VARIANCE * variances.max(), 1e-12)
    if not used.any():
        return 0.0, 0
    between = (others.mean(axis=0) - ones.mean(axis=0)) @ directions[:, used]
    t_square = float(np.sum(between**2 / variances[used])) * n * m / (n + m)
    degrees = int(used.sum())
    return t_square * (n + m - degrees - 1) / (degrees * (n + m - 2)), degrees
