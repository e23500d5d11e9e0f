"""Statistics of accuracies: the confidence interval of one model, and the paired comparison of two.

Photos on which both classifiers are right, or both wrong, say nothing of the difference. The others are counted:

    b   photos that only the first classifier names rightly, such as the model in production
    c   photos that only the second one names rightly, such as a new model
    n   all photos

    d = (c - b) / n             the second classifier's accuracy less the first one's

All is for independent photos: one per group of near-duplicates. The counts may be arrays: everything is elementwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its interval of confidence."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def wilson(right: int, images: int, level: float = 0.95) -> Interval:
    """Return a share with its two-sided interval, which holds near 0 and 1 and for few images too.

    Args:
        right: images of which it is true, 0 to `images`.
        images: how many there are; of none nothing is known, which is 0 to 1.
        level: of confidence, 0 to 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22, 1927.
    """
    if images == 0:
        return Interval(float("nan"), 0.0, 1.0)
    from scipy.stats import binomtest

    found = binomtest(right, images).proportion_ci(confidence_level=level, method="wilson")
    return Interval(right / images, float(found.low), float(found.high))


def least_share(right: int, images: int, level: float = 0.95) -> float:
    """Return the one-sided lower bound of Clopper and Pearson: the true share is below it with at most 1 - level.

    Exact, so never too high whatever the share is; of no images it is 0.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26, 1934.
    """
    if right == 0:
        return 0.0
    from scipy.special import betaincinv  # scipy.stats has the same and takes a second to import

    return float(betaincinv(right, images - right + 1, 1 - level))


# Quantiles of the normal distribution: a one-sided test at 0.05, and a power of 0.8.
_ONE_SIDED_05, _POWER_80 = 1.6449, 0.8416
_FEWEST = 5  # photos, all of one kind, for an exact p of at most 0.05: 0.5 ** 5 is 0.031
_STEPS = 30  # of a bisection: to 2 / 2 ** 30 of the accuracy


def exact_mcnemar(b: Any, c: Any) -> Any:
    """Return p of the exact one-sided McNemar test that the second classifier is not better: small where c >> b.

    Without a difference each of the b + c photos would favour either with probability 1/2, so p = P(X >= c) for X
    binomial with b + c trials. That the second one is worse is shown by a small `exact_mcnemar(c, b)`.

    Args:
        b: photos that only the first classifier names rightly, integers.
        c: photos that only the second one names rightly, of the same shape.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12,
    1947; its exact form as in Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13:91, 2013.
    """
    from scipy.special import betainc

    b, c = np.asarray(b, np.float64), np.asarray(c, np.float64)
    p = np.where(c > 0, betainc(np.maximum(c, 1), b + 1, 0.5), 1.0)
    return float(p) if p.ndim == 0 else p


def tango_z(b: Any, c: Any, n: Any, difference: Any) -> Any:
    """Return Tango's score statistic of the hypothesis that the true difference of accuracies is `difference`.

    z = (c - b - n delta) / sqrt(n (2 q + delta (1 - delta))), with q, the share of photos that only the first one names
    rightly, at its most likely value under the hypothesis: the larger root of 2 n q^2 + B q - b delta (1 - delta) = 0,
    B = -b - c + (2 n - c + b) delta. Without a difference (delta = 0) it is McNemar's z = (c - b) / sqrt(b + c).

    Args:
        b: photos that only the first classifier names rightly.
        c: photos that only the second one names rightly.
        n: all photos, at least 1.
        difference: delta, -1 to 1: accuracy of the second less that of the first.

    Returns:
        Standard normal under the hypothesis; large where the second classifier does better than it says. 0 where counts
        and hypothesis agree that there is no difference at all.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17, 1998, equations 9 to 12 (there x12 is c, and x21 is b).
    """
    b, c, n, delta = (np.asarray(value, np.float64) for value in (b, c, n, difference))
    linear = -b - c + (2 * n - c + b) * delta
    root = np.sqrt(np.maximum(linear**2 + 8 * n * b * delta * (1 - delta), 0))
    variance = n * (2 * (root - linear) / (4 * n) + delta * (1 - delta))
    distance = c - b - n * delta
    # Counts that the hypothesis excludes leave no variance; then the distance decides alone.
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(variance > 1e-12, distance / np.sqrt(np.maximum(variance, 1e-300)), np.sign(distance) * np.inf)
    z = np.where(np.abs(distance) < 1e-12, 0.0, z)
    return float(z) if z.ndim == 0 else z


def not_worse(b: Any, c: Any, n: Any, margin: float) -> Any:
    """Return p of Tango's test that the second classifier is worse by `margin` or more: small where it is not.

    Args: as of `tango_z`; `margin` is a share of the photos, 0 to 1.
    """
    from scipy.special import ndtr

    return ndtr(-np.asarray(tango_z(b, c, n, -margin)))[()]


def tango_interval(b: float, c: float, n: int, level: float = 0.95) -> Interval:
    """Return d with its two-sided interval: all differences that Tango's test does not reject.

    Args: as of `tango_z`; `level` is that of confidence. Of no photos nothing is known, which is -1 to 1.
    """
    if n == 0:
        return Interval(float("nan"), -1.0, 1.0)
    from scipy.special import ndtri

    value, quantile = (c - b) / n, float(ndtri((1 + level) / 2))
    signs = np.array([-1.0, 1.0])
    inside, outside = np.full(2, value), signs
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        rejected = signs * tango_z(b, c, n, middle) < -quantile
        inside, outside = np.where(rejected, inside, middle), np.where(rejected, middle, outside)
    return Interval(value, *inside.tolist())


def smallest_loss_shown(b: int, c: int, n: int) -> float:
    """Return the loss of accuracy that as many photos would show with a power of 80 %, as a share of them.

    (1.64 + 0.84) sqrt(b + c) / n, from the normal form of McNemar's test, one-sided at 0.05; with hardly any photo on
    which the two differ, at least the five that the exact test needs. Of too few photos it is 1.
    """
    return min(1.0, max((_ONE_SIDED_05 + _POWER_80) * float(np.sqrt(b + c)), _FEWEST) / max(1, n))


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return p-values, adjusted so that the chance of any false finding among all of them is kept.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(1, adjusted)
    return result


def mean_interval(differences: np.ndarray, level: float = 0.95) -> Interval:
    """Return the mean of paired differences, shape (n,), with Student's two-sided interval; of fewer than two, any."""
    count = len(differences)
    if count < 2:
        return Interval(float(differences.mean()) if count else float("nan"), -np.inf, np.inf)
    from scipy.special import stdtrit

    mean = float(differences.mean())
    reach = float(stdtrit(count - 1, (1 + level) / 2)) * float(differences.std(ddof=1)) / float(np.sqrt(count))
    return Interval(mean, mean - reach, mean + reach)


def evidence_of_harm(b: Any, c: Any) -> Any:
    """Return an e-value against "the second classifier is at least as good": it may be looked at after every photo.

    With b = photos that only the first names rightly, E = 2^(b+c) * 2 * B(b+1, c+1) * (1 - I_half(b+1, c+1)): the
    likelihood of the counts where only the first one's wins have a share p, averaged over p uniform on (1/2, 1), over
    that with p = 1/2. If the second one is at least as good, E ever reaches 1/alpha with probability at most alpha
    (Ville's inequality), however often one looks.

    Args:
        b: photos that only the first classifier names rightly, integers.
        c: photos that only the second one names rightly.

    Source: Ville, "Etude critique de la notion de collectif", 1939; Ramdas et al., "Game-theoretic statistics and safe
    anytime-valid inference", Statistical Science 38, 2023.
    """
    from scipy.special import betaincc, betaln

    b, c = np.asarray(b, np.float64), np.asarray(c, np.float64)
    logarithm = (b + c + 1) * np.log(2) + betaln(b + 1, c + 1)
    with np.errstate(divide="ignore", over="ignore"):
        value = np.exp(logarithm + np.log(betaincc(b + 1, c + 1, 0.5)))
    return float(value) if value.ndim == 0 else value
