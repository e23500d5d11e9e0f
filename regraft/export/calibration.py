"""Probabilities that mean what they say: the temperature of a file, and the shares of classes in use.

Temperature: one number by which logits are divided, so that of answers with probability 0.8 about 80 % are right
(Guo et al., "On Calibration of Modern Neural Networks", 2017). It is folded into the head's weights.

Shares (`export_onnx.class_shares`), where classes are more or less frequent in use than in the photos here:

    p(class | photo) in use  ~  p(class | photo) as learnt * share in use / share learnt       (the shift of a file)
    a mean over photos in use = the mean over photos here, each with the weight  share in use / share here

Both hold under label shift: Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
probabilities", Neural Computation 14, 2002.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from regraft.core.config import ClassWeight
from regraft.core.errors import InvalidParams
from regraft.training.metrics import Objective

COLDEST, HOTTEST = 0.25, 4.0
TEMPERATURE, SHIFT, SHARES = "temperature", "logit_shift", "class_shares"  # in the metadata of a file
_STEPS = 40  # from 1 to the best temperature
# Few mistakes cannot tell what those to come will cost: with none, all photos gain by a temperature of 0.25, and the
# first mistake then costs more than they won.
_FEWEST_WRONG = 10
_SMALLEST = 1e-30  # probability that counts as none, which has no logarithm


@dataclass(frozen=True, slots=True)
class Calibration:
    """The temperature of a file, and what it was decided on."""

    temperature: float  # 1: probabilities are as they were trained
    best: float  # the one with the lowest loss on val
    images: int  # of val, one per group of near-duplicates
    log_loss: float  # on these, before
    gain: float  # of log loss there
    words: str  # what was decided and why


def choose_temperature(logits: np.ndarray, class_indices: np.ndarray, objective: Objective) -> Calibration:
    """Return the temperature that a file ships with.

    The best one on val goes too far, since a few mistakes decide it. So it is the one nearest to 1 whose loss is within
    one standard error of the best one's, photo by photo (the rule of one standard error: Breiman, Friedman, Olshen and
    Stone, "Classification and regression trees", 1984, section 3.4.3). `benchmarks.checks.calibration` has the rates.

    Args:
        logits: of val, shape (n, num_classes), up to a constant per photo; one photo per group, none trained on.
        class_indices: the true classes, shape (n,).
        objective: whose loss counts; `balanced_log_loss` gives every class the same weight.
    """
    count = len(class_indices)
    weights = np.ones(count)
    if objective.loss == "balanced_log_loss":
        weights = 1 / np.bincount(class_indices)[class_indices]
    weights /= weights.sum()
    before = float(weights @ _losses(logits, class_indices, 1.0))
    wrong = int((logits.argmax(axis=1) != class_indices).sum())
    if wrong < _FEWEST_WRONG:
        words = (
            f"Probabilities are as they were trained: {wrong} mistakes on {count} val photos are too few to fit a "
            f"temperature to; it takes {_FEWEST_WRONG}."
        )
        return Calibration(1.0, 1.0, count, before, 0.0, words)
    best = _best(logits, class_indices, weights)
    chosen = _nearest_to_one(best, logits, class_indices, weights)
    name = objective.loss.replace("_", " ")
    after = float(weights @ _losses(logits, class_indices, chosen))
    if chosen == 1.0:
        words = (
            f"Probabilities are as they were trained: on {count} val photos their {name} is within one standard error "
            f"of that of the best temperature, {best:.2f}."
        )
    else:
        words = (
            f"Logits are divided by {chosen:.3f}: on {count} val photos the {name} is {after:.4f} then, in place of "
            f"{before:.4f}, and within one standard error of that of the best temperature, {best:.2f}."
        )
    return Calibration(chosen, best, count, before, before - after, words)


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Return logits of probabilities, up to a constant per photo: float64, same shape."""
    return np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits: float64, shape (n, num_classes)."""
    return np.exp(_log_softmax(logits))


def shift_for_use(
    shares: Mapping[str, float] | None, class_names: list[str], trained_on: np.ndarray, class_weight: ClassWeight
) -> np.ndarray | None:
    """Return what is added to the logits where classes are more or less frequent in use than in training, or None.

    log(share in use / share that the network learnt). With `balanced` or `logit_adjustment` the network treats all
    classes as equally frequent.

    Returns:
        float32, shape (num_classes,).

    Raises:
        InvalidParams: a class is missing, or is none of the network's.
    """
    if shares is None:
        return None
    if set(shares) != set(class_names):
        wrong = sorted(set(shares) ^ set(class_names))
        raise InvalidParams(
            f"export_onnx.class_shares: expected a share of each class of the photos and of no other. "
            f"Missing, or unknown: {', '.join(wrong[:5])}."
        )
    used = np.array([shares[name] for name in class_names], np.float64)
    learnt = np.bincount(trained_on, minlength=len(class_names)).astype(np.float64)
    learnt = learnt if class_weight == "none" else np.ones(len(class_names))
    return np.log(used / used.sum() / (learnt / learnt.sum())).astype(np.float32)


def shares_of(metadata: Mapping[str, str]) -> dict[str, float] | None:
    """Return how frequent each class is in use; None where that is as in the photos."""
    return json.loads(metadata[SHARES]) if SHARES in metadata else None


def as_learnt(probabilities: np.ndarray, metadata: Mapping[str, str]) -> np.ndarray:
    """Return the probabilities of a file without its shift: shape (n, num_classes), float64 where it has one.

    Raises:
        ValueError: the metadata has no number for each class.
    """
    if SHIFT not in metadata:
        return probabilities
    shift = np.array(json.loads(metadata[SHIFT]), np.float64)
    if shift.shape != probabilities.shape[1:] or not np.isfinite(shift).all():
        raise ValueError(f"{SHIFT} in the metadata must be {probabilities.shape[1]} numbers")
    return softmax(logits_of(probabilities) - shift)


def weights_for_use(
    class_indices: np.ndarray, class_names: list[str], shares: Mapping[str, float] | None
) -> np.ndarray | None:
    """Return what each photo counts for: share in use / share here, float64, shape (n,); None where all count the same.

    The mean is 1. A class of which there is no photo cannot be measured; the others share what it has.
    """
    if shares is None or not len(class_indices):
        return None
    used = np.array([shares.get(name, 0.0) for name in class_names], np.float64)
    weights = (used / np.bincount(class_indices, minlength=len(used)).clip(1))[class_indices]
    return weights / weights.mean()


def rows_for_use(class_indices: np.ndarray, class_names: list[str], shares: Mapping[str, float] | None) -> np.ndarray:
    """Return the positions of as many photos of each class that the classes are as frequent as in use.

    For exact bounds, which know no weights: rejection sampling, as in Park, Dobriban, Lee and Bastani, "PAC prediction
    sets under covariate shift", ICLR 2022. All photos of the class that is rarest here beside use are taken, and of
    the others every second, every third ..., which is as good as drawn: the order of photos is that of their digests.
    Where there is no photo of a class, nothing is known of photos in use, and none is taken.
    """
    counts = np.bincount(class_indices, minlength=len(class_names))
    if shares is None:
        return np.arange(len(class_indices))
    if not counts.all():
        return np.zeros(0, int)
    taken = np.array([shares[name] for name in class_names], np.float64) / counts
    taken = (taken / taken.max())[class_indices]  # of each photo: the part of its class
    rank = np.empty(len(class_indices), int)
    order = np.argsort(class_indices, kind="stable")
    rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    # Rounded, so that the last bits of products decide on no photo.
    return np.flatnonzero(np.floor(((rank + 1) * taken).round(9)) > np.floor((rank * taken).round(9)))


def _best(logits: np.ndarray, class_indices: np.ndarray, weights: np.ndarray) -> float:
    """Return the temperature with the lowest loss; the loss is convex in its reciprocal, so there is one."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return float(weights @ _losses(logits, class_indices, np.exp(log_temperature)))

    found = minimize_scalar(loss, bounds=np.log([COLDEST, HOTTEST]), method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(found.x)), 3)


def _nearest_to_one(best: float, logits: np.ndarray, class_indices: np.ndarray, weights: np.ndarray) -> float:
    """Return the temperature nearest to 1 whose loss is within one standard error of the best one's."""
    lowest = _losses(logits, class_indices, best)
    for share in np.linspace(0, 1, _STEPS + 1):
        # Rounded, so that the last bits of sums, which differ from machine to machine, do not reach the file.
        temperature = round(float(best**share), 3)
        more = _losses(logits, class_indices, temperature) - lowest
        mean = float(weights @ more)
        if mean <= np.sqrt(float(weights**2 @ (more - mean) ** 2)):
            return temperature
    return best


def _losses(logits: np.ndarray, class_indices: np.ndarray, temperature: float) -> np.ndarray:
    return -_log_softmax(logits / temperature)[np.arange(len(class_indices)), class_indices]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
