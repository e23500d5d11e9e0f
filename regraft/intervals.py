"""Intervals of a share: what a count of right answers says of all photos of the kind.

All are for independent photos. Near-duplicates are none, so count one photo per group (`regraft.photos.duplicates`).
"""

from dataclasses import dataclass


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
