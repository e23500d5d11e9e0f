"""When a model had better say that it is unsure: a threshold on its largest probability that keeps a promise.

The promise is a precision: of the photos that are answered, at least so many are answered rightly. It is fixed on val,
and it has to hold for photos that nobody has seen, although many thresholds are tried on the same val photos. So they
are tried in a fixed order, from the strictest on, and the first one that fails ends it.
"""

from dataclasses import dataclass
from math import ceil, log

import numpy as np

from regraft.core.statistics import least_share
from regraft.serving.thresholds import NoPromise, Promise

CONFIDENCE = 0.95
_STEPS = 20  # thresholds that are tried: those that answer 5 %, 10 %, ... of val
_FACTOR = 3  # between the shares of val at which the order begins


def fewest_photos(target: float, confidence: float = CONFIDENCE) -> int:
    """Return how many photos, all of them answered rightly, show a precision of `target`: 149 for 0.98."""
    return ceil(log(1 - confidence) / log(target))


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether a file abstains, and what that was decided on."""

    promise: Promise | None
    images: int  # of val, one per group of near-duplicates
    answered: int  # of these, by the threshold
    words: str  # what was decided and why
    no_promise: NoPromise | None = None  # why there is no promise

    def as_metadata(self) -> dict[str, str]:
        """Return what the file says of itself: its promise, or why it has none."""
        said = self.promise or self.no_promise
        return said.as_metadata() if said else {}


def choose_threshold(
    right: np.ndarray, largest: np.ndarray, target: float | None, in_use: np.ndarray | None = None
) -> Choice:
    """Return from which probability on a file answers: any, without a target.

    Args:
        right: as of `find_promise`.
        largest: as of `find_promise`.
        target: the precision, or None.
        in_use: positions of the photos that count, from `regraft.export.calibration.rows_for_use`: the promise is
            about photos that are as frequent as in use.
    """
    everything = len(right)
    if in_use is not None:
        right, largest = right[in_use], largest[in_use]
    count, answered = len(right), len(right)
    promise = find_promise(right, largest, target=target) if target is not None else None
    if promise:
        answered, no_promise = int((largest >= promise.abstain_below).sum()), None
        words = f"{promise}; {answered / count:.0%} of {count} val photos are answered."
        words = words[0].upper() + words[1:]
    else:
        no_promise = NoPromise(target, count, 0 if target is None else fewest_photos(target))
        words = f"It answers every photo: {no_promise}."
    if count < everything and target is not None:
        words += f" Of {everything} val photos {count} count, so that classes are as frequent as in use"
        words += " (export_onnx.class_shares)."
    return Choice(promise, count, answered, words, no_promise)


def find_promise(
    right: np.ndarray, largest: np.ndarray, *, target: float, confidence: float = CONFIDENCE
) -> Promise | None:
    """Return the lowest threshold that keeps a promise, or None if none does.

    Let the k most confident of n photos be answered, so that the threshold is just above the next one's probability.
    Given that probability, their errors are binomial with the true error rate above it, so the bound of Clopper and
    Pearson is exact for each k. The numbers k follow from n alone and are tried upwards until a bound is below the
    target, so the promise is broken only if the first threshold that is too low passes: a fixed sequence of tests, as
    in Learn then Test. That is exact where more confident answers are right no less often;
    `python -m benchmarks.checks.abstention` has the rates also where they are not.

    A sequence may end early by chance. So with many photos there are several, from a third, a ninth, ... of them on,
    which share the error rate; one that passes hands its share to the next (Wiens' fallback procedure). With few photos
    there is one, from the fewest that can show anything on.

    The photos must be like those that the file will see, and they must not have been trained on. Where they also chose
    between a few models, as val does, they flatter the winner a little: test says how much.

    Args:
        right: whether each answer is right, bool, shape (n,); one photo per group of near-duplicates.
        largest: the largest probability of each photo, shape (n,).
        target: the precision, between 0 and 1.
        confidence: of the promise, between 0 and 1.

    Sources: Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test: calibrating predictive algorithms to achieve
    risk control", 2021; Wiens, "A fixed sequence Bonferroni procedure", Pharmaceutical Statistics 2, 2003; Geifman and
    El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017.
    """
    count, order = len(right), np.argsort(-largest, kind="stable")
    ordered, right_of = largest[order], np.concatenate([[0], np.cumsum(right[order])])
    found, carried = None, 0.0
    for answered, own_share in _plan(count, target, confidence):
        threshold = _threshold(ordered, answered)
        answered = int((largest >= threshold).sum())
        error_rate = own_share + carried
        holds = error_rate > 0 and least_share(int(right_of[answered]), answered, 1 - error_rate) >= target
        carried = error_rate if holds else 0.0
        found = threshold if holds else found
    return None if found is None else Promise(found, target, confidence)


def _threshold(ordered: np.ndarray, answered: int) -> float:
    """Return what the most confident ones reach and the next one does not; 0 where there is no next one."""
    if answered == len(ordered):
        return 0.0
    last, following = ordered[answered - 1 : answered + 1]
    if last == following:  # as 1.0 of many photos: of equal ones all are answered
        return float(last)
    return float(np.nextafter(following, np.inf, dtype=ordered.dtype))


def _plan(count: int, target: float, confidence: float) -> list[tuple[int, float]]:
    """Return how many photos are answered in each trial, upwards, and which part of the error rate begins there."""
    fewest = fewest_photos(target, confidence)
    starts = [max(count // _FACTOR, fewest)]
    while (start := starts[-1] // _FACTOR) >= 2 * fewest:
        starts.append(start)
    numbers = {ceil(count * step / _STEPS) for step in range(1, _STEPS + 1)} | set(starts)
    share = (1 - confidence) / len(starts)
    return [(number, share if number in starts else 0.0) for number in sorted(numbers) if starts[-1] <= number <= count]
