"""Between the head alone and the fine-tuned network: weights on the line from one to the other, chosen on val.

Wortsman et al., "Robust fine-tuning of zero-shot models", 2022, equation 1: (1 - alpha) * before + alpha * after. Both
ends share the pretrained backbone, so what lies between them works as well, and often better than either: it is less
sure of itself than the fine-tuned network, and knows more than the head alone.

Val has a few hundred photos, on which networks that are near each other differ by chance. So the usual one is used
unless val shows another one to be better; `benchmarks.accuracy.blending` has the error rate and its cost.
Which one is usual depends on how many photos there are to learn from. Of few, fine-tuning spoils more than it learns in
some folders and learns much in others, and of so few in val nobody can say which: half way is wrong in none of them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from regraft.core.statistics import mean_interval
from regraft.training.inputs import Images
from regraft.training.metrics import Objective, Score, log_losses, score
from regraft.training.trainer import Trainer

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)  # 0 is the head alone on the backbone as it was, 1 the fine-tuned network
_USUAL, _USUAL_OF_FEW = 0.75, 0.5
_MANY = 700  # training photos; docs/log.md has what both were measured on


@dataclass(frozen=True, slots=True)
class Blend:
    """Which weights are used, and what val said of all that were tried."""

    alpha: float
    scores: dict[float, Score]  # on val, by alpha; none where nothing was tried
    images: int  # of val

    def as_report(self) -> dict[str, Any]:
        """Return what reports/fine_tune.json has of it."""
        tried = [{"alpha": alpha, **asdict(figures)} for alpha, figures in self.scores.items()]
        return {"alpha": self.alpha, "val_images": self.images, "tried": tried}


def usual_of(train_images: int) -> float:
    """Return which network is used unless val shows another one to be better, after fine-tuning on so many images."""
    return _USUAL if train_images >= _MANY else _USUAL_OF_FEW


def blend(
    trainer: Trainer,
    ends: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    val: Images,
    objective: Objective,
    *,
    usual: float,
) -> Blend:
    """Leave the weights in a network that `choose` names.

    Args:
        trainer: of the network.
        ends: the weights of alpha 0, the head alone, and of alpha 1, as `trainer.weights` orders them.
        val: images that neither was trained on; without any the usual network is used.
        objective: says which log loss.
        usual: from `usual_of`.
    """
    if not len(val):
        trainer.set_weights(between(*ends, usual))
        return Blend(usual, {}, 0)
    said = {}
    for alpha in ALPHAS:
        trainer.set_weights(between(*ends, alpha))
        said[alpha] = trainer.predict(val)
    chosen = choose(said, val.class_indices, objective, usual=usual)
    trainer.set_weights(between(*ends, chosen.alpha))
    return chosen


def choose(said: dict[float, np.ndarray], class_indices: np.ndarray, objective: Objective, *, usual: float) -> Blend:
    """Choose between networks by their log loss on val: the best one if that is shown, else the usual one.

    It is shown if the 95 % interval of the mean difference to the usual one, photo by photo, is above zero. The log
    loss sees far more than accuracy does: it tells networks apart that are right equally often.

    Args:
        said: probabilities by alpha, shape (n, num_classes).
        class_indices: the true classes, shape (n,).
        objective: says which log loss; of the balanced one every class counts the same.
        usual: one of the alphas.
    """
    weights = np.ones(len(class_indices))
    if objective.loss == "balanced_log_loss":  # the mean over classes as one over images
        images = np.bincount(class_indices)
        weights = len(class_indices) / np.count_nonzero(images) / images[class_indices]
    losses = {alpha: weights * log_losses(class_indices, each) for alpha, each in said.items()}
    best = min(losses, key=lambda alpha: losses[alpha].mean())
    is_shown = mean_interval(losses[usual] - losses[best]).low > 0
    scores = {alpha: score(class_indices, each) for alpha, each in said.items()}
    return Blend(best if is_shown else usual, scores, len(class_indices))


def between(before: Sequence[np.ndarray], after: Sequence[np.ndarray], alpha: float) -> list[np.ndarray]:
    """Return weights between two networks, float32; at 0 and 1 they are those of the one or the other to the bit."""
    if alpha in (0.0, 1.0):
        return list(after if alpha else before)
    share = np.float32(alpha)
    return [(1 - share) * old + share * new for old, new in zip(before, after, strict=True)]
