"""Between the head alone and the fine-tuned network: weights on the line from one to the other, chosen on val.

Wortsman et al., "Robust fine-tuning of zero-shot models", 2022, equation 1: (1 - alpha) * before + alpha * after. Both
ends share the pretrained backbone, so what lies between them works as well, and often better than either: it is less
sure of itself than the fine-tuned network, and knows more than the head alone.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from regraft.training.inputs import Images
from regraft.training.metrics import Objective, Score, score
from regraft.training.trainer import Trainer

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)  # 0 is the head alone on the backbone as it was, 1 the fine-tuned network


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


def blend(
    trainer: Trainer, head_alone: Sequence[np.ndarray], tuned: Sequence[np.ndarray], val: Images, objective: Objective
) -> Blend:
    """Leave those weights in a network that have the lowest log loss on val.

    Its errors: see `benchmarks.blending`. The log loss sees far more than accuracy does: with a few hundred photos it
    tells networks apart that are right equally often. Of equal ones the one nearest to the head alone is used.

    Args:
        trainer: of the network.
        head_alone: the weights of alpha 0, as `trainer.weights` orders them.
        tuned: those of alpha 1.
        val: images that neither was trained on.
        objective: says which log loss.
    """
    if not len(val):
        trainer.set_weights(tuned)
        return Blend(1.0, {}, 0)
    scores = {}
    for alpha in ALPHAS:
        trainer.set_weights(between(head_alone, tuned, alpha))
        scores[alpha] = score(val.class_indices, trainer.predict(val))
    alpha = choose(scores, objective)
    trainer.set_weights(between(head_alone, tuned, alpha))
    return Blend(alpha, scores, len(val))


def choose(scores: dict[float, Score], objective: Objective) -> float:
    """Return the alpha with the lowest log loss; of equal ones the smallest."""
    return min(scores, key=lambda alpha: (objective.loss_of(scores[alpha]), alpha))


def between(before: Sequence[np.ndarray], after: Sequence[np.ndarray], alpha: float) -> list[np.ndarray]:
    """Return weights between two networks, float32; at 0 and 1 they are those of the one or the other to the bit."""
    if alpha in (0.0, 1.0):
        return list(after if alpha else before)
    share = np.float32(alpha)
    return [(1 - share) * old + share * new for old, new in zip(before, after, strict=True)]
