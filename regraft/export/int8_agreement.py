"""How well an int8 file agrees with the float32 file that it was made from, and what that costs of the accuracy.

No labels are needed. Where both name the same class, nothing is lost. Where they do not, float32 names class s and int8
class t, and float32 itself says how often such a photo is an s, and how often a t: its probabilities are calibrated.
So over the photos on which they differ

    b = sum of p(s)             photos that only float32 names rightly, as expected
    c = sum of p(t)             photos that only int8 names rightly

and Tango's interval of (b - c) / n is that of the loss. Since p(s) >= p(t), b is never below c. Every photo that
differs as a loss (b = their number, c = 0) would be a bound too, and one that no file reaches: int8 errs where float32
is undecided, and there either is as often right. On 700 photos of val and test of trashnet5, with the head alone
trained, 14 differ: b = 7 and c = 4 by their labels, a loss of 3; expected are 3.0.

Only val photos that training has not seen count. A network has learnt training photos by heart: it is sure of them, the
two hardly ever differ there, and the loss would look smaller than it is.
"""

from dataclasses import dataclass

import numpy as np

from regraft.core.statistics import Interval, tango_interval

_ERROR = 0.05  # chance that what ships costs more than the budget, whichever rung it is
# Of the budget: to show that a loss above this is within it takes a hundred times as many photos as without any loss.
_NEAR = 0.9


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of int8 with float32, over independent photos."""

    images: int
    level: float  # of the intervals
    differing: int  # photos with another most probable class
    only_float32: float  # b: of these, photos that float32 alone names rightly, as expected
    only_int8: float  # c
    loss: Interval  # of accuracy; its bounds are those of Tango
    every_one_lost: Interval  # the loss if float32 were right about every photo
    largest_gap: float  # between the first two probabilities of float32, of the photos that differ; 0 without any
    largest_difference: float  # of any probability


def level_of(rung: int) -> float:
    """Return the level of the interval that decides on a rung of the ladder, the first one being 0: 95 %, 97.5 %, ...

    All rungs are judged on the same photos and the first that passes ships, so each one is a further chance to be
    wrong. Their upper bounds are too low with a chance of 2.5 %, 1.25 %, 0.625 %, ..., together at most 5 %, however
    long the ladder is (the union bound). The first rung, which mostly passes, has half of it.
    """
    return 1 - _ERROR / 2**rung


def agreement_of(exact: np.ndarray, ours: np.ndarray, *, level: float, of: int | None = None) -> Agreement:
    """Compare probabilities of independent photos that training has not seen.

    Args:
        exact: of float32, shape (n, num_classes).
        ours: of int8, the same shape.
        level: of the intervals, from `level_of`.
        of: how many photos there are, where these are the first n of them and the rest is thought to agree.
    """
    count, rows = of or len(exact), np.arange(len(exact))
    first, second = exact.argmax(axis=1), ours.argmax(axis=1)
    differs = first != second
    b, c = (float((exact[rows, chosen].astype(np.float64) * differs).sum()) for chosen in (first, second))
    first_two = np.sort(exact, axis=1)[differs][:, -2:]
    return Agreement(
        images=count,
        level=level,
        differing=int(differs.sum()),
        only_float32=b,
        only_int8=c,
        loss=_loss(b, c, count, level),
        every_one_lost=_loss(float(differs.sum()), 0.0, count, level),
        largest_gap=float((first_two[:, -1] - first_two[:, 0]).max(initial=0)),
        largest_difference=float(np.abs(exact - ours).max(initial=0)),
    )


def fewest_photos(budget: float, *, level: float, shares: tuple[float, float] = (0.0, 0.0)) -> int:
    """Return how many photos show a loss within a budget: 765 for 0.005 at 95 % if nothing differs on any of them.

    Args:
        budget: largest loss of accuracy.
        level: of the interval.
        shares: of the photos that only float32, and only int8, names rightly; their difference is below the budget.
    """

    def is_enough(count: int) -> bool:
        return _loss(shares[0] * count, shares[1] * count, count, level).high <= budget

    low, high = 1, 2
    while not is_enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def photos_that_would_do(found: Agreement, budget: float) -> int | None:
    """Return how many photos like these show a loss within a budget; None if no reasonable number does."""
    if found.loss.value > _NEAR * budget:
        return None
    return fewest_photos(
        budget, level=found.level, shares=(found.only_float32 / found.images, found.only_int8 / found.images)
    )


def _loss(b: float, c: float, count: int, level: float) -> Interval:
    found = tango_interval(b, c, count, level)
    return Interval(0.0 - found.value, 0.0 - found.high, 0.0 - found.low)
