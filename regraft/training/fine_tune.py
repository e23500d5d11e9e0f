"""Fine-tuning: the top of the backbone, or all of it, is trained together with the head."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import ceil, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.backbones.catalogue import Backbone
from regraft.config import FineTune
from regraft.files import sha256_of
from regraft.photos.views import Views
from regraft.provenance import provenance_of
from regraft.training.checkpoints import Checkpoint
from regraft.training.class_weights import prior_of
from regraft.training.inputs import Images, TrainingImages
from regraft.training.keras_models import Epoch
from regraft.training.layers import choose_layers, learning_rates
from regraft.training.metrics import PairedTest, mcnemar_test
from regraft.training.trainer import Trainer
from regraft.training.training_loop import Plan, Training

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class FineTuned:
    """What fine-tuning came to."""

    settings: FineTune
    is_used: bool  # whether the fine-tuned network is used; if not, the head on the backbone as it was
    reason: str  # why, in words
    curve: list[Epoch]  # epoch 0 is the head alone; empty where nothing was trained
    best: Epoch | None = None
    test: PairedTest | None = None  # of the best epoch against the head alone, on the val images

    def as_report(self) -> dict[str, Any]:
        """Return reports/fine_tune.json."""
        whole = "all" if self.settings.layers == "all" else "top"
        report = {
            "mode": self.settings.mode,
            "layers": self.settings.layers,
            "is_used": self.is_used,
            "trained": whole if self.is_used else "head",
            "reason": self.reason,
        }
        if self.best is None or self.test is None:
            return report
        return {
            **report,
            **self.best.as_report(epochs_run=self.curve[-1].epoch),
            "head_alone": asdict(self.curve[0].val),
            "mcnemar": asdict(self.test),
        }


def switched_off(settings: FineTune) -> FineTuned:
    """Return what comes of fine-tuning where `mode` is off."""
    return FineTuned(settings, False, "Fine-tuning is off (fine_tune.mode in params.yaml).", [])


def fine_tune(
    model: "keras.Model",
    cut: str,
    images: TrainingImages,
    plan: Plan,
    *,
    checkpoint: Checkpoint,
    on_epoch: Callable[[Epoch], None],
) -> FineTuned:
    """Train a part of `model` in place and leave the weights that are best on val in it.

    BatchNorm stays in inference mode and its scale and shift stay frozen: statistics of small batches would destroy
    features that were learnt on a million images.

    Args:
        model: from `layers.join`.
        cut: name of the layer whose activations are cached.
        images: train is trained on; val chooses the epoch and whether the result is used. Their inputs are
            `cached_activations` or, where all layers are trained, `live_pixels`.
        plan: settings and seed.
        checkpoint: of this training.
        on_epoch: called after each epoch.

    Raises:
        InvalidParams: `settings.layers` names no layer that could be the last frozen one.
    """
    settings, val = plan.settings, images.val
    prior = prior_of(plan.class_weight, images.train.class_indices, images.num_classes)
    training = Training(start_trainer(model, cut, settings, prior), images, plan, checkpoint)
    if settings.mode == "auto" and (reason := _why_not_to_train(training, val, settings)):
        return FineTuned(settings, False, reason, [])
    trained = training.run(on_epoch)
    test = mcnemar_test(trained.before == val.class_indices, trained.after == val.class_indices)
    is_used, reason = _judge(trained.curve[0], trained.best, test, settings)
    return FineTuned(settings, is_used, reason, trained.curve, trained.best, test)


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


def _why_not_to_train(training: Training, val: Images, settings: FineTune) -> str | None:
    """Return in words why `auto` does not train, or None if it does."""
    if training.is_begun:
        return None
    errors, needed = int((training.before != val.class_indices).sum()), ceil(log2(1 / settings.significance))
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


def _judge(head_alone: Epoch, best: Epoch, test: PairedTest, settings: FineTune) -> tuple[bool, str]:
    """Return whether the fine-tuned network is used, and why.

    Being right more often on val is not enough: with a few hundred photos a worse network often is, and one that was
    fine-tuned on few photos then costs test accuracy. The test is somewhat in favour of the fine-tuned network, because
    the same images chose its epoch.
    """
    before, after = (
        f"{epoch.val.accuracy:.3f} (cross-entropy {epoch.val.log_loss:.3f})" for epoch in (head_alone, best)
    )
    if best is head_alone:
        return False, f"The fine-tuned network is not used: no epoch was better on val than the head alone, {before}."
    is_used = test.p <= settings.significance
    return is_used, (
        f"The fine-tuned network is {'' if is_used else 'not '}used: val accuracy {after} in epoch {best.epoch}, "
        f"{before} of the head alone; {test.only_after} val photos are right only with it, {test.only_before} only "
        f"without it (exact one-sided McNemar test: p = {test.p:.2g}); fine_tune.significance is "
        f"{settings.significance:g}."
    )
