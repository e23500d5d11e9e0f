"""Is the fine-tuned network better than the head alone? A test on the val images, which chose nothing of the two."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from regraft.intervals import Interval
from regraft.paired_tests import exact_mcnemar, mean_interval
from regraft.training.metrics import Objective, in_words

_RESOLUTION = 100_000  # of a gain in macro recall, as a part of the largest gain that there could be
_DIGITS = 12  # of p; it is compared with numbers such as 0.25 that it may equal


@dataclass(frozen=True, slots=True)
class Answers:
    """What a network said of the val images."""

    predicted: np.ndarray  # class indices, shape (n,)
    losses: np.ndarray  # log losses, float64, shape (n,)


@dataclass(frozen=True, slots=True)
class KeepTest:
    """What the test said of a network before and after fine-tuning, on the same images."""

    figure: str  # that is compared: accuracy or macro_recall
    only_before: int  # images that are named rightly only before
    only_after: int  # and only after
    p: float  # the chance of such a gain, or a larger one, where there is none
    loss_change: Interval  # of the log loss, or the balanced one, with its paired 95 % interval

    def speaks_for_it(self, significance: float) -> bool:
        """Return whether the network is better, and not shown to be worse by its log loss.

        With few photos a network that gains a few val photos by chance is often far too sure of the wrong ones.
        """
        return self.p <= significance and self.loss_change.low <= 0

    def as_report(self) -> dict[str, Any]:
        """Return what reports/fine_tune.json has of it."""
        return asdict(self)

    def words(self) -> str:
        """Return counts, test and p."""
        name = "exact one-sided McNemar test" if self.figure == "accuracy" else "one-sided permutation test"
        change = f"{self.loss_change.value:+.3f}, {self.loss_change.low:+.3f} to {self.loss_change.high:+.3f}"
        return (
            f"{self.only_after} val photos are right only with it, {self.only_before} only without it ({name} of "
            f"{in_words(self.figure)}: p = {self.p:.2g}); its log loss "
            f"{'is worse by more than chance' if self.loss_change.low > 0 else 'is not shown to be worse'} ({change})"
        )


def keep_test(class_indices: np.ndarray, before: Answers, after: Answers, objective: Objective) -> KeepTest:
    """Test whether a network names more images rightly after fine-tuning than before: accuracy, or macro recall.

    If fine-tuning changed nothing for the better or worse, chance would decide which of two different answers to an
    image is the one before, with probability 1/2: p is the share of all such exchanges with a gain of this size or
    more. Of accuracy this is the exact McNemar test. Of macro recall an image counts the more the fewer its class has,
    and the exchanges are counted class by class; weights are rounded, which costs a little power and no exactness.

    Args:
        class_indices: the true classes, shape (n,).
        before: what was said before.
        after: the same after.
        objective: says which share is compared.
    """
    was_right, is_right = before.predicted == class_indices, after.predicted == class_indices
    only_before, only_after = was_right & ~is_right, is_right & ~was_right
    b, c = int(only_before.sum()), int(only_after.sum())
    is_plain = objective.share == "accuracy"
    p = exact_mcnemar(b, c) if is_plain else _p_of_exchanges(class_indices, only_before, only_after)
    changes = after.losses - before.losses
    if not is_plain:  # the mean over classes as one over images
        images = np.bincount(class_indices)
        changes = changes * len(changes) / np.count_nonzero(images) / images[class_indices]
    return KeepTest(objective.share, b, c, round(float(p), _DIGITS), mean_interval(changes))


def _p_of_exchanges(class_indices: np.ndarray, only_before: np.ndarray, only_after: np.ndarray) -> float:
    """Return the share of exchanges after which macro recall has gained as much or more; masks of shape (n,).

    Of the images of a class that differ, those that are right after are binomial with probability 1/2. The distribution
    of their sum, weighted by 1 / images of the class as whole numbers, is built up class by class.
    """
    from scipy.stats import binom

    images = np.bincount(class_indices)
    before, after = (np.bincount(class_indices, mask, len(images)).astype(int) for mask in (only_before, only_after))
    has_any = before + after > 0
    images, differ, after = images[has_any], (before + after)[has_any], after[has_any]
    weights = images.max(initial=1) / images
    weights = np.round(weights * max(1, _RESOLUTION // max(1, np.dot(weights, differ)))).astype(int)
    weights //= max(1, np.gcd.reduce(weights))  # with as many images of each class, all are 1, and this is McNemar's
    shares = np.ones(1)  # by the sum
    for weight, count in zip(weights, differ, strict=True):
        longer = np.zeros(len(shares) + weight * count)
        for right, share in enumerate(binom.pmf(np.arange(count + 1), count, 0.5)):
            longer[weight * right : weight * right + len(shares)] += share * shares
        shares = longer
    return float(shares[np.dot(weights, after) :].sum())
