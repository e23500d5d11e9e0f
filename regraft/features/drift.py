"""Drift: how far new photos are from those that a model was trained on.

The reference is divided at random; distances of the new photos and of one half are taken from the other half. A
distance is that to the fifth neighbour, over the usual one there. Photos of the reference are weighted by the share of
their class among the new ones, so that another mix of classes is no drift. Of a thousand new photos the smallest
difference is more than chance, so each figure also has a least size.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from regraft.features.neighbours import distances_of, unit_length
from regraft.validation.drift import (
    MUCH,
    class_weights,
    effective_number,
    of_known_classes,
    population_stability_index,
    psi_by_chance,
    weighted_quantiles,
)

_BINS = 10
_AXES = 32  # along which a shift is looked for
_FAR = 0.01  # share of the reference photos that count as far from the others
_MANY_FAR = 0.05  # share of new photos that far which is no drift, whatever chance says
_LARGE_SHIFT = 0.8  # in deviations, a "large" effect (Cohen, Statistical Power Analysis, 1988); less is no drift
_LEAST_REFERENCE, _LEAST_NEW = 50, 20  # photos from which drift can be told from chance
_NEIGHBOUR = 5
_FIGURES = 3  # each has its part of the chance of a false alarm (Bonferroni)
_NO_DISTANCE = 1e-3  # float32 cannot tell such points apart
_NO_VARIANCE = 1e-6  # of the largest variance along an axis: noise of float32


@dataclass(frozen=True, slots=True)
class Sample:
    """Photos that are independent of each other, one per group."""

    features: np.ndarray  # float32, (n, dim)
    labels: np.ndarray  # names of their classes, (n,)

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, chosen: np.ndarray) -> "Sample":
        """Return some of them: a mask or positions."""
        return Sample(self.features[chosen], self.labels[chosen])


@dataclass(frozen=True, slots=True)
class Drift:
    """Three figures, 0 where nothing has changed, each with a limit that is large and that chance seldom exceeds."""

    reference: int  # photos
    new: int
    population_stability: float  # whether new photos are farther from the reference, or nearer, than a half of it
    population_stability_limit: float
    far_share: float  # of the new photos: farther from the reference than 99 % of that half
    far_share_limit: float
    shift: float  # in deviations: by how much new photos differ from the most similar ones all in the same way
    shift_limit: float

    @property
    def is_drift(self) -> bool:
        """Whether any figure is large, and more than chance."""
        return (
            self.population_stability > self.population_stability_limit
            or self.far_share > self.far_share_limit
            or self.shift > self.shift_limit
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The reference of a drift check."""

    against: Literal["production", "anchor"]  # the model that services use; the one that a person set
    words: str  # which model that is, or why there is nothing to compare with
    samples: tuple[Sample, Sample] | None  # its training photos, and newer ones; None: not comparable


def measure_drift(reference: Sample, new: Sample, significance: float) -> Drift | None:
    """Compare the distances of new photos from one half of the reference with those of the other half, and directions.

    The population stability index is summed over the deciles of the reference's distances: without drift about
    (1/n + 1/m) times a chi-square of nine degrees of freedom (Yurdakul, "Statistical properties of the population
    stability index", 2018), for n photos of a half and m new ones. How many of m new photos are farther than the j-th
    farthest of n is a beta-binomial variable, whatever the distribution. The shift is the Mahalanobis distance between
    the differences to the nearest photo of the reference, new photos against its own, along its first principal axes;
    without drift its square is that of Hotelling's two-sample test. For photos with weights w, n = (sum w)^2 / sum w^2.

    Args:
        reference: what the model was trained on.
        new: the photos that are new since, from the same backbone; those of hardly known classes are left out.
        significance: the chance of any alarm without drift, all three figures together.

    Returns:
        None if there are too few photos to tell.
    """
    new = new.part(of_known_classes(new.labels, reference.labels))
    if len(reference) < _LEAST_REFERENCE or len(new) < _LEAST_NEW:
        return None
    from scipy.stats import betabinom

    chance, m = significance / _FIGURES, len(new)
    with threadpool_limits(1, user_api="blas"):
        known, fresh = unit_length(reference.features), unit_length(new.features)
        similarities = np.concatenate([known, fresh]) @ known.T
        held_out, others = _halves(reference.labels)
        before, after = _unlikeness(similarities, held_out, others, m)
        shift, shift_limit = _shift(known, fresh, similarities, class_weights(reference.labels, new.labels), chance)
    weights = class_weights(reference.labels[held_out], new.labels)
    if not weights.any():  # the classes of new photos have one photo each in the reference
        return None
    n = effective_number(weights)
    edges = weighted_quantiles(before, weights, np.linspace(0, 1, _BINS + 1)[1:-1])
    then = np.bincount(np.searchsorted(edges, before), weights, _BINS) * n / weights.sum()
    now = np.bincount(np.searchsorted(edges, after), minlength=_BINS)
    rank = max(1, round(_FAR * n))
    return Drift(
        reference=len(reference),
        new=m,
        population_stability=population_stability_index(then, now),
        population_stability_limit=max(MUCH, psi_by_chance(_BINS, n, m, chance)),
        far_share=float(np.mean(after > weighted_quantiles(before, weights, np.array([1 - rank / n]))[0])),
        far_share_limit=max(_MANY_FAR, float(betabinom.isf(chance, m, rank, n - rank + 1)) / m),
        shift=shift,
        shift_limit=shift_limit,
    )


def _halves(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of two halves of the reference, each with half of every class."""
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    return order[::2], order[1::2]


def _unlikeness(
    similarities: np.ndarray, held_out: np.ndarray, others: np.ndarray, new: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances of the held-out half and of the new photos from the other half: about 1 is usual."""
    among = similarities[:, others]
    usual = _neighbours(_without_itself(among[others]))[0]
    unlike = []
    for block in (among[held_out], among[-new:]):
        distances, nearest = _neighbours(block)
        unlike.append(distances / np.maximum(usual[nearest].mean(axis=1), _NO_DISTANCE))
    return unlike[0], unlike[1]


def _neighbours(similarities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distance of each row's point to its fifth neighbour, float64, and the five, the nearest first."""
    places = np.argpartition(-similarities, _NEIGHBOUR - 1, axis=1)[:, :_NEIGHBOUR]
    found = np.take_along_axis(similarities, places, axis=1)
    by_similarity = np.argsort(-found, axis=1, kind="stable")
    return distances_of(found.min(axis=1)), np.take_along_axis(places, by_similarity, axis=1)


def _without_itself(similarities: np.ndarray) -> np.ndarray:
    """Similarities of points with themselves, in which none is its own neighbour."""
    similarities = similarities.copy()
    np.fill_diagonal(similarities, -2)  # below any cosine
    return similarities


def _shift(
    known: np.ndarray, fresh: np.ndarray, similarities: np.ndarray, weights: np.ndarray, chance: float
) -> tuple[float, float]:
    """The shift of new photos from the most similar ones, and its limit."""
    from scipy.stats import f
    from sklearn.utils.extmath import randomized_svd

    size, m, n = len(known), len(fresh), effective_number(weights)
    from_nearest = known - known[_without_itself(similarities[:size]).argmax(axis=1)]
    fresh_from_nearest = fresh - known[similarities[size:].argmax(axis=1)]
    count = min(_AXES, m // 2, int(n) // 2, known.shape[1])  # roughly the first axes: the test holds along any
    axes = randomized_svd(known - known.mean(axis=0), max(1, count), n_iter=2, random_state=0)[2].T
    distance, axes_used = _mahalanobis(from_nearest @ axes, weights, fresh_from_nearest @ axes)
    if not axes_used:
        return 0.0, 0.0
    # Hotelling: T^2 = n m / (n + m) D^2, and T^2 (n + m - p - 1) / (p (n + m - 2)) is an F variable.
    freedom = n + m - axes_used - 1
    largest = f.isf(chance, axes_used, freedom) * axes_used * (n + m - 2) / freedom * (n + m) / (n * m)
    return distance, max(_LARGE_SHIFT, float(np.sqrt(largest)))


def _mahalanobis(ones: np.ndarray, weights: np.ndarray, others: np.ndarray) -> tuple[float, int]:
    """The distance of two means in units of the common deviation, and along how many directions it was taken.

    Directions without any variance say nothing and are left out.
    """
    ones, others = ones.astype(np.float64), others.astype(np.float64)
    n, m = effective_number(weights), len(others)
    spread = (np.cov(ones.T, aweights=weights) * (n - 1) + np.cov(others.T) * (m - 1)) / (n + m - 2)
    variances, directions = np.linalg.eigh(np.atleast_2d(spread))
    used = variances > max(_NO_VARIANCE * variances.max(), 1e-12)
    between = (others.mean(axis=0) - np.average(ones, axis=0, weights=weights)) @ directions[:, used]
    return float(np.sqrt(np.sum(between**2 / variances[used]))), int(used.sum())
