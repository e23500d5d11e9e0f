"""Fine-tuning: the top of the backbone, or all of it, is trained together with the head."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.backbones.catalogue import Backbone
from regraft.core.config import ClassWeight, FineTune
from regraft.core.files import sha256_of
from regraft.core.provenance import provenance_of
from regraft.photos.views import Views
from regraft.training.blending import Blend
from regraft.training.class_weights import objective_of
from regraft.training.keras_models import Epoch
from regraft.training.layers import choose_layers, learning_rates
from regraft.training.metrics import Objective
from regraft.training.network_file import Trained
from regraft.training.trainer import Trainer
from regraft.training.training_loop import Plan, Training

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class FineTuned:
    """What fine-tuning came to."""

    settings: FineTune
    objective: Objective
    reason: str  # which weights are used, and why, in words
    curve: list[Epoch] = field(default_factory=list)  # epoch 0 is before training; empty where nothing was trained
    blend: Blend | None = None  # which weights are used; None: the head alone, and nothing else was tried

    @property
    def is_used(self) -> bool:
        """Whether anything of the fine-tuned network is used; if not, it is the head on the backbone as it was."""
        return self.blend is not None and self.blend.alpha > 0

    @property
    def trained(self) -> Trained:
        """What the network that is used differs from the pretrained backbone in."""
        return trained_by(self.settings) if self.is_used else "head"

    def as_report(self) -> dict[str, Any]:
        """Return reports/fine_tune.json."""
        report = {
            "mode": self.settings.mode,
            "budget": self.settings.budget,
            "layers": self.settings.layers,
            "is_used": self.is_used,
            "trained": self.trained,
            "objective": asdict(self.objective),
            "reason": self.reason,
            "epochs_run": self.curve[-1].epoch if self.curve else 0,
        }
        return report | (self.blend.as_report() if self.blend else {})


def trained_by(settings: FineTune) -> Trained:
    """Return what fine-tuning with these settings changes."""
    return "all" if settings.layers == "all" else "top"


def switched_off(settings: FineTune, class_weight: ClassWeight) -> FineTuned:
    """Return what comes of fine-tuning where `mode` is off."""
    return FineTuned(settings, objective_of(class_weight), "Fine-tuning is off (fine_tune.mode in params.yaml).")


def fine_tuned(blend: Blend, curve: list[Epoch], settings: FineTune, objective: Objective) -> FineTuned:
    """Return what came of a training whose weights `blending.blend` has chosen."""
    return FineTuned(settings, objective, _words(blend, objective), curve, blend)


def _words(blend: Blend, objective: Objective) -> str:
    mixed = f"{100 * blend.alpha:.0f} % fine-tuned, {100 * (1 - blend.alpha):.0f} % head-only"
    shipped = f"Shipped weights: {({0.0: 'head-only', 1.0: 'fine-tuned'}).get(blend.alpha, mixed)}"
    if not blend.scores:
        return f"{shipped}, as is usual: there is no val photo to choose with."
    words = {alpha: objective.words(figures) for alpha, figures in blend.scores.items()}
    loss = min(objective.loss_of(figures) for figures in blend.scores.values())
    is_lowest = objective.loss_of(blend.scores[blend.alpha]) == loss
    why = "has the lowest log loss"
    if not is_lowest:
        why = "is usual with so many photos, and no other is shown to be better"
    return (
        f"{shipped}. On {blend.images:,} val photos they have {words[blend.alpha]}, the head alone {words[0.0]}, the "
        f"fine-tuned network {words[1.0]}. Of {len(words)} mixtures this one {why}."
    )


def start_trainer(model: "keras.Model", cut: str, settings: FineTune, prior: np.ndarray | None = None) -> Trainer:
    """Return what trains those layers of `model` that the settings say; see `choose_layers`.

    Args:
        model: from `layers.join`.
        cut: name of the layer whose activations are cached.
        settings: say what is trained, and how fast.
        prior: from `class_weights.prior_of`.
    """
    network = choose_layers(model, cut, settings.layers)
    dtype = "uint8" if settings.layers == "all" else "float16"
    rates = learning_rates(network, settings.layer_decay)
    return Trainer(network, rates, weight_decay=settings.weight_decay, dtype=dtype, prior=prior)


def facts_of(backbone: Backbone, views: Views, plan: Plan, *, files: list[Path]) -> dict[str, Any]:
    """Return what determines a training, for its checkpoint; cached activations come on top.

    Args:
        backbone: the network that is trained.
        views: of the images.
        plan: settings and seed.
        files: that it starts from: head and data set.
    """
    return {
        "backbone": [
            backbone.name,
            backbone.weights_digest,
            backbone.preprocessing,
            backbone.image_size,
            backbone.cut,
        ],
        "views": asdict(views),
        "settings": [plan.settings.model_dump(), plan.class_weight],
        "files": [sha256_of(file) for file in files],
        "seed": plan.seed,
        "provenance": provenance_of(__name__).digest,
    }


def why_not_to_train(training: Training, settings: FineTune) -> str | None:
    """Return in words why `auto` does not train, or None if it does."""
    if training.is_begun:
        return None
    minutes = training.seconds() / 60
    if minutes > settings.max_minutes:
        return (
            f"Not fine-tuned: {settings.epochs} epochs would take about {minutes:.1f} minutes here, and "
            f"fine_tune.max_minutes is {settings.max_minutes:g}."
        )
    return None
