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

Training photos flatter: a network has learnt them by heart, and there the two hardly ever differ. They narrow the
interval, and val keeps them honest: the loss on val alone has to be within the budget too.
"""

from dataclasses import dataclass

import numpy as np

from regraft.intervals import Interval
from regraft.paired_tests import tango_interval

LEVEL = 0.95  # of the intervals


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of int8 with float32, over independent photos."""

    images: int
    differing: int  # photos with another most probable class
    only_float32: float  # b: of these, photos that float32 alone names rightly, as expected
    only_int8: float  # c
    loss: Interval  # of accuracy; its bounds are those of Tango
    loss_on_val: float  # 0 where there is no val photo
    every_one_lost: Interval  # the loss if float32 were right about every photo
    largest_gap: float  # between the first two probabilities of float32, of the photos that differ; 0 without any
    largest_difference: float  # of any probability


def agreement_of(exact: np.ndarray, ours: np.ndarray, is_val: np.ndarray, *, of: int | None = None) -> Agreement:
    """Compare probabilities.

    Args:
        exact: of float32, shape (n, num_classes).
        ours: of int8, the same shape.
        is_val: which of the photos are of val, bool, shape (n,).
        of: how many photos there are, where these are the first n of them and the rest is thought to agree.
    """
    count, rows = of or len(exact), np.arange(len(exact))
    first, second = exact.argmax(axis=1), ours.argmax(axis=1)
    differs = first != second
    b, c = (exact[rows, chosen].astype(np.float64) * differs for chosen in (first, second))
    first_two = np.sort(exact, axis=1)[differs][:, -2:]
    val = max(1, int(is_val.sum()))
    return Agreement(
        images=count,
        differing=int(differs.sum()),
        only_float32=float(b.sum()),
        only_int8=float(c.sum()),
        loss=_loss(float(b.sum()), float(c.sum()), count),
        loss_on_val=float((b - c)[is_val].sum()) / val,
        every_one_lost=_loss(float(differs.sum()), 0.0, count),
        largest_gap=float((first_two[:, -1] - first_two[:, 0]).max(initial=0)),
        largest_difference=float(np.abs(exact - ours).max(initial=0)),
    )


def fewest_photos(budget: float) -> int:
    """Return how many photos show a loss within a budget if nothing differs on any of them: 765 for 0.005."""
    low, high = 1, 2
    while _loss(0, 0, high).high > budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _loss(0, 0, middle).high <= budget else (middle, high)
    return high


def _loss(b: float, c: float, count: int) -> Interval:
    found = tango_interval(b, c, count, LEVEL)
    return Interval(0.0 - found.value, 0.0 - found.high, 0.0 - found.low)
