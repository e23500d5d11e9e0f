"""Drift: how far new photos are from those that the model in production was trained on.

Every photo is compared with the reference photo that is most like it, so that a batch of one class only, where the
reference has all, looks strange as little as possible.
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
_NO_VARIANCE = 1e-6  # of the largest variance along an axis: noise of float32


@dataclass(frozen=True, slots=True)
class Drift:
    """Three figures, 0 where nothing has changed, each with the limit that chance alone seldom exceeds."""

    reference: int  # photos
    new: int
    population_stability: float  # whether new photos are farther from, or nearer to, the reference than it is to itself
    population_stability_limit: float
    far_share: float  # of the new photos: farther from the reference than 99 % of it
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
    """Compare new photos with their nearest reference photos, as reference photos are with each other.

    The population stability index is summed over the deciles of the reference's distances: without drift about
    (1/n + 1/m) times a chi-square of nine degrees of freedom (Yurdakul, "Statistical properties of the population
    stability index", 2018). How many of m new photos are farther than the j-th farthest of n is a beta-binomial
    variable, whatever the distribution. The shift is Hotelling's two-sample T-square of the differences to the nearest
    photo, along the reference's first principal axes, as the F variable that it is without drift.

    Args:
        reference: features of what the model in production was trained on, shape (n, dim); None if there is none.
        new: features of the photos that are new since, from the same backbone, shape (m, dim).
        significance: the chance of an alarm without drift, for each of the three figures.

    Returns:
        None without a reference, and if there are too few photos to tell.
    """
    if reference is None or len(reference) < _LEAST_REFERENCE or len(new) < _LEAST_NEW:
        return None
    from scipy.linalg import eigh
    from scipy.stats import betabinom, f

    known, fresh = unit_length(reference), unit_length(new)
    n, m = len(known), len(fresh)
    with threadpool_limits(1, user_api="blas"):
        among, from_nearest = _nearest(known, known, is_same=True)
        to_them, fresh_from_nearest = _nearest(fresh, known, is_same=False)
        centred, dim = known - known.mean(axis=0), known.shape[1]
        first = max(0, dim - min(_AXES, m // 2))  # they come with the smallest variance first
        axes = eigh(centred.T @ centred, subset_by_index=(first, dim - 1))[1]
        shift, degrees = _hotelling(from_nearest @ axes, fresh_from_nearest @ axes)
    edges = np.quantile(among, np.linspace(0, 1, _BINS + 1)[1:-1])
    then, now = (np.bincount(np.searchsorted(edges, distances), minlength=_BINS) for distances in (among, to_them))
    rank = max(1, round(_FAR * n))
    return Drift(
        reference=n,
        new=m,
        population_stability=population_stability_index(then, now),
        population_stability_limit=psi_by_chance(_BINS, n, m, significance),
        far_share=float(np.mean(to_them > np.sort(among)[-rank])),
        far_share_limit=float(betabinom.isf(significance, m, rank, n - rank + 1) / m),
        shift=shift,
        shift_limit=float(f.isf(significance, degrees, n + m - 1 - degrees)) if degrees else 0.0,
    )


def _nearest(points: np.ndarray, among: np.ndarray, *, is_same: bool) -> tuple[np.ndarray, np.ndarray]:
    """The distance of each point to the nearest other one, float64, and the difference from it."""
    similarities, nearest = np.empty(len(points), np.float32), np.empty(len(points), np.int64)
    for start in range(0, len(points), _ROWS):
        block = points[start : start + _ROWS] @ among.T
        if is_same:
            block[np.arange(len(block)), start + np.arange(len(block))] = -2  # below any cosine
        nearest[start : start + _ROWS], similarities[start : start + _ROWS] = block.argmax(axis=1), block.max(axis=1)
    return distances_of(similarities), points - among[nearest]


def _hotelling(ones: np.ndarray, others: np.ndarray) -> tuple[float, int]:
    """Hotelling's two-sample T-square as an F variable, and its degrees of freedom d; the others are n + m - 1 - d.

    Directions without any variance say nothing and are left out.
    """
    n, m = len(ones), len(others)
    ones, others = ones.astype(np.float64), others.astype(np.float64)
    spread = (np.cov(ones.T) * (n - 1) + np.cov(others.T) * (m - 1)) / (n + m - 2)
    variances, directions = np.linalg.eigh(np.atleast_2d(spread))
    kept = variances > max(_NO_VARIANCE * variances.max(), 1e-12)
    if not kept.any():
        return 0.0, 0
    between = (others.mean(axis=0) - ones.mean(axis=0)) @ directions[:, kept]
    t_square = float(np.sum(between**2 / variances[kept])) * n * m / (n + m)
    degrees = int(kept.sum())
    return t_square * (n + m - degrees - 1) / (degrees * (n + m - 2)), degrees
