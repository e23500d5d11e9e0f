"""Fine-tuning: the top of the backbone, or all of it, is trained together with the head."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.backbones.catalogue import Backbone
from regraft.config import ClassWeight, FineTune
from regraft.files import sha256_of
from regraft.photos.views import Views
from regraft.provenance import provenance_of
from regraft.training.checkpoints import Checkpoint
from regraft.training.class_weights import objective_of, prior_of
from regraft.training.inputs import Images, TrainingImages
from regraft.training.keep_test import KeepTest, keep_test
from regraft.training.keras_models import Epoch
from regraft.training.layers import choose_layers, learning_rates
from regraft.training.metrics import Objective
from regraft.training.trainer import Trainer
from regraft.training.training_loop import Plan, Trained, Training

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class FineTuned:
    """What fine-tuning came to."""

    settings: FineTune
    objective: Objective
    is_used: bool  # whether the fine-tuned network is used; if not, the head on the backbone as it was
    reason: str  # why, in words
    curve: list[Epoch]  # epoch 0 is the head alone; empty where nothing was trained
    test: KeepTest | None = None  # of the last epoch against the head alone, on the val images

    def as_report(self) -> dict[str, Any]:
        """Return reports/fine_tune.json."""
        whole = "all" if self.settings.layers == "all" else "top"
        report = {
            "mode": self.settings.mode,
            "layers": self.settings.layers,
            "is_used": self.is_used,
            "trained": whole if self.is_used else "head",
            "objective": asdict(self.objective),
            "reason": self.reason,
        }
        if self.test is None:
            return report
        first, last = self.curve[0], self.curve[-1]
        return {
            **report,
            "val": asdict(last.val),
            "epochs_run": last.epoch,
            "head_alone": asdict(first.val),
            "test": self.test.as_report(),
        }


def switched_off(settings: FineTune, class_weight: ClassWeight) -> FineTuned:
    """Return what comes of fine-tuning where `mode` is off."""
    reason = "Fine-tuning is off (fine_tune.mode in params.yaml)."
    return FineTuned(settings, objective_of(class_weight), False, reason, [])


def fine_tune(
    model: "keras.Model",
    cut: str,
    images: TrainingImages,
    plan: Plan,
    *,
    checkpoint: Checkpoint,
    on_epoch: Callable[[Epoch], None],
) -> FineTuned:
    """Train a part of `model` in place, and say whether the result is to be used.

    BatchNorm stays in inference mode and its scale and shift stay frozen: statistics of small batches would destroy
    features that were learnt on a million images.

    Args:
        model: from `layers.join`.
        cut: name of the layer whose activations are cached.
        images: train is trained on; val says whether the result is used, and has chosen nothing of it. Their inputs
            are `cached_activations` or, where all layers are trained, `live_pixels`.
        plan: settings and seed.
        checkpoint: of this training.
        on_epoch: called after each epoch.

    Raises:
        InvalidParams: `settings.layers` names no layer that could be the last frozen one.
    """
    settings, objective = plan.settings, objective_of(plan.class_weight)
    prior = prior_of(plan.class_weight, images.train.class_indices, images.num_classes)
    training = Training(start_trainer(model, cut, settings, prior), images, plan, checkpoint)
    if settings.mode == "auto" and (reason := why_not_to_train(training, images.val, settings)):
        return FineTuned(settings, objective, False, reason, [])
    return _judged(training.run(on_epoch), images.val.class_indices, settings, objective)


def start_trainer(model: "keras.Model", cut: str, settings: FineTune, prior: np.ndarray | None = None) -> Trainer:
    """Return what trains those layers of `model` that the settings say; arguments and errors as of `fine_tune`."""
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
        "backbone": [backbone.name, backbone.weights_digest, backbone.image_size, backbone.cut],
        "views": asdict(views),
        "settings": [plan.settings.model_dump(), plan.class_weight],
        "files": [sha256_of(file) for file in files],
        "seed": plan.seed,
        "provenance": provenance_of(__name__).digest,
    }


def why_not_to_train(training: Training, val: Images, settings: FineTune) -> str | None:
    """Return in words why `auto` does not train, or None if it does."""
    if training.is_begun:
        return None
    errors, needed = int((training.before.predicted != val.class_indices).sum()), ceil(log2(1 / settings.significance))
    if errors < needed:
        return (
            f"Not fine-tuned: the head is wrong on {errors} of {len(val)} val photos. Even if all of them came right, "
            f"that could be chance: at fine_tune.significance {settings.significance:g} it takes {needed}."
        )
    minutes = training.seconds() / 60
    if minutes > settings.max_minutes:
        return (
            f"Not fine-tuned: {settings.epochs} epochs would take about {minutes:.1f} minutes here, and "
            f"fine_tune.max_minutes is {settings.max_minutes:g}."
        )
    return None


def _judged(trained: Trained, class_indices: np.ndarray, settings: FineTune, objective: Objective) -> FineTuned:
    """Test the network after the last epoch against the head alone, and say what comes of it.

    Being right more often on val is not enough: with a few hundred photos a worse network often is, and one that was
    fine-tuned on few photos then costs test accuracy.
    """
    test = keep_test(class_indices, trained.before, trained.after, objective)
    is_used = test.speaks_for_it(settings.significance)
    first, last = trained.curve[0], trained.curve[-1]
    reason = (
        f"The fine-tuned network is {'' if is_used else 'not '}used: on val it has {objective.words(last.val)} after "
        f"epoch {last.epoch}, the head alone {objective.words(first.val)}; {test.words()}; fine_tune.significance is "
        f"{settings.significance:g}."
    )
    return FineTuned(settings, objective, is_used, reason, trained.curve, test)
