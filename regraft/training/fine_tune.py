"""Fine-tuning: a warm run starts from the base, and its weights are mixed with the head alone as val decides.

Few photos are new in a run, so one or two epochs visit them and a replay sample of those that the base was trained on.
The shipped weights lie on the line from the head alone to the fine-tuned network: (1 - alpha) * before + alpha * after
(Wortsman et al., "Robust fine-tuning of zero-shot models", 2022, equation 1). On few val photos, networks near each
other differ by chance, so the usual alpha holds unless another one is shown to be better on val.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from regraft.backbones.catalogue import Backbone
from regraft.core.config import ClassWeight, FineTune
from regraft.core.files import fingerprint, sha256_of
from regraft.core.provenance import provenance_of
from regraft.core.statistics import mean_interval
from regraft.photos.base_record import BaseRecord
from regraft.photos.dataset import Dataset
from regraft.photos.views import Views
from regraft.training.keras_network import build_network, choose_layers, load_into, network_of, weights_of
from regraft.training.metrics import Epoch, Objective, Score, class_prior, log_losses, objective_of, score
from regraft.training.network_file import Head, HeadSettings, Network, Trained
from regraft.training.trainer import Images, Trainer
from regraft.training.training_loop import Checkpoint, Plan, Training, TrainingImages

if TYPE_CHECKING:
    import keras

WARM_EPOCHS = 2  # passes of a warm run
_WARM_RATE = 0.03  # its peak learning rate, as a share of learning_rate; with a larger one the few steps forget
# A warm run forgets by its steps, and few new photos make few. So it visits 8 known photos per new one and 10 of each
# class, but of all classes together at most four times the former, or 320: ten batches, enough for 32 classes.
REPLAY, REPLAY_PER_CLASS = 8, 10
_TIMES_REPLAY, _ALWAYS = 4, 320
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)  # 0 is the head alone on the pretrained backbone, 1 the fine-tuned network
# Of few photos fine-tuning spoils more than it learns in some folders and learns much in others: half way is wrong in
# none of them. docs/log.md has the measurements.
_USUAL, _USUAL_OF_FEW, _MANY = 0.75, 0.5, 700  # alpha from so many training photos on, alpha of fewer
# Where nothing is fine-tuned, the head of the base is not read: one without features and classes takes no space.
_NO_HEAD = Head(HeadSettings(0, "relu", "adamw", 0.0, 1.0, 0.0, 0.0), [np.zeros((0, 0)), np.zeros(0)])
NO_BASE = Network("head", _NO_HEAD, {})


@dataclass(frozen=True, slots=True)
class Blend:
    """The alpha that is used, and the figures on val of all that were tried."""

    alpha: float
    scores: dict[float, Score]  # on val, by alpha; none where nothing was tried
    images: int  # of val


def usual_of(train_images: int) -> float:
    """Return the alpha that is used unless val shows another one to be better, after training on so many images."""
    return _USUAL if train_images >= _MANY else _USUAL_OF_FEW


def blend(
    trainer: Trainer,
    ends: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    val: Images,
    objective: Objective,
    *,
    usual: float,
) -> Blend:
    """Set a network to the weights that `choose` picks.

    Args:
        trainer: of the network.
        ends: the weights of alpha 0, the head alone, and of alpha 1, as `trainer.weights` orders them.
        val: images that neither was trained on; without any the usual alpha is used.
        objective: of the choice.
        usual: from `usual_of`.
    """
    if not len(val):
        trainer.set_weights(between(*ends, usual))
        return Blend(usual, {}, 0)
    predictions = {}
    for alpha in ALPHAS:
        trainer.set_weights(between(*ends, alpha))
        predictions[alpha] = trainer.predict(val)
    chosen = choose(predictions, val.class_indices, objective, usual=usual)
    trainer.set_weights(between(*ends, chosen.alpha))
    return chosen


def choose(
    predictions: dict[float, np.ndarray], class_indices: np.ndarray, objective: Objective, *, usual: float
) -> Blend:
    """Choose an alpha by log loss on val: the best one if it is shown to be better than the usual one, else that one.

    It is shown if the 95 % interval of the mean difference, photo by photo, is above zero. The log loss tells networks
    apart that are right equally often.

    Args:
        predictions: probabilities by alpha, shape (n, num_classes).
        class_indices: the true classes, shape (n,).
        objective: its loss counts; of the balanced one every class counts the same.
        usual: one of the alphas.
    """
    weights = np.ones(len(class_indices))
    if objective.loss == "balanced_log_loss":  # the mean over classes as one over images
        images = np.bincount(class_indices)
        weights = len(class_indices) / np.count_nonzero(images) / images[class_indices]
    losses = {alpha: weights * log_losses(class_indices, each) for alpha, each in predictions.items()}
    best = min(losses, key=lambda alpha: losses[alpha].mean())
    is_shown = mean_interval(losses[usual] - losses[best]).low > 0
    scores = {alpha: score(class_indices, each) for alpha, each in predictions.items()}
    return Blend(best if is_shown else usual, scores, len(class_indices))


def between(before: Sequence[np.ndarray], after: Sequence[np.ndarray], alpha: float) -> list[np.ndarray]:
    """Return weights between two networks, float32; at 0 and 1 they are those of the one or the other to the bit."""
    if alpha in (0.0, 1.0):
        return list(after if alpha else before)
    share = np.float32(alpha)
    return [(1 - share) * old + share * new for old, new in zip(before, after, strict=True)]


@dataclass(frozen=True, slots=True)
class FineTuned:
    """The result of fine-tuning."""

    settings: FineTune
    objective: Objective
    reason: str  # which weights are used, and why, in words
    curve: list[Epoch] = field(default_factory=list)  # epoch 0 is before training; empty where nothing was trained
    blend: Blend | None = None  # None: the head alone, and nothing else was tried

    @property
    def is_used(self) -> bool:
        """Whether anything of the fine-tuned network is used; if not, the head on the pretrained backbone is."""
        return self.blend is not None and self.blend.alpha > 0

    @property
    def trained(self) -> Trained:
        """The part in which the used network differs from the pretrained backbone."""
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
        if not self.blend:
            return report
        tried = [{"alpha": alpha, **asdict(figures)} for alpha, figures in self.blend.scores.items()]
        return report | {"alpha": self.blend.alpha, "val_images": self.blend.images, "tried": tried}


def trained_by(settings: FineTune) -> Trained:
    """Return the part of a network that fine-tuning with these settings changes."""
    return "all" if settings.layers == "all" else "top"


def switched_off(settings: FineTune, class_weight: ClassWeight) -> FineTuned:
    """Return the result of fine-tuning where `mode` is off."""
    return FineTuned(settings, objective_of(class_weight), "Fine-tuning is off (fine_tune.mode in params.yaml).")


def _words(blend: Blend, objective: Objective) -> str:
    mixed = f"{100 * blend.alpha:.0f} % fine-tuned, {100 * (1 - blend.alpha):.0f} % head-only"
    shipped = f"Shipped weights: {({0.0: 'head-only', 1.0: 'fine-tuned'}).get(blend.alpha, mixed)}"
    if not blend.scores:
        return f"{shipped}, as is usual: there is no val photo to choose with."
    words = {alpha: objective.words(figures) for alpha, figures in blend.scores.items()}
    loss = min(objective.loss_of(figures) for figures in blend.scores.values())
    is_lowest = objective.loss_of(blend.scores[blend.alpha]) == loss
    why = "has the lowest log loss" if is_lowest else "is usual with so many photos, and no other is shown to be better"
    return (
        f"{shipped}. On {blend.images:,} val photos they have {words[blend.alpha]}, the head alone {words[0.0]}, the "
        f"fine-tuned network {words[1.0]}. Of {len(words)} mixtures this one {why}."
    )


def start_trainer(model: "keras.Model", cut: str, layers: str, prior: np.ndarray | None = None) -> Trainer:
    """Return the trainer of some layers of `model`, which is from `join`; see `choose_layers` and `Trainer`."""
    dtype = "uint8" if layers == "all" else "float16"
    return Trainer(choose_layers(model, cut, layers), dtype=dtype, prior=prior)


def facts_of(backbone: Backbone, views: Views, plan: Plan, *, files: list[Path]) -> dict[str, Any]:
    """Return everything that determines a training, but for cached activations."""
    named = ("name", "weights_digest", "preprocessing", "image_size", "cut")
    return {
        "backbone": [getattr(backbone, name) for name in named],
        "views": asdict(views),
        "settings": [plan.settings.model_dump(), plan.class_weight],
        "files": [sha256_of(file) for file in files],
        "seed": plan.seed,
        "provenance": provenance_of(__name__).digest,
    }


def open_checkpoint(folder: Path, facts: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint of the training that `facts`, which are JSON-able, determine."""
    return Checkpoint(folder / f"{fingerprint(facts)[:16]}.npz")


def why_not_to_train(training: Training, settings: FineTune) -> str | None:
    """Return in words why `auto` does not train, or None if it does."""
    if training.is_begun or (minutes := training.seconds() / 60) <= settings.max_minutes:
        return None
    return (
        f"Not fine-tuned: {settings.epochs} epochs would take about {minutes:.1f} minutes here, and "
        f"fine_tune.max_minutes is {settings.max_minutes:g}."
    )


@dataclass(frozen=True, slots=True)
class WarmPhotos:
    """The photos of train that a warm run visits."""

    photos: Dataset  # of split train, ordered by digest
    new: int  # the base was not trained on them, or under another label
    replayed: int


def warm_photos(dataset: Dataset, record: BaseRecord) -> WarmPhotos:
    """Choose the photos of a warm run; a photo that is gone is not among them.

    The replay sample has the smallest digests of the photos that the base was trained on, as good as a random draw. Of
    each class there are enough that it is not forgotten; the first photo of each class comes before any second.

    Args:
        dataset: today's photos, or the sample of them that is fine-tuned on.
        record: of the base. A photo that its sample lacks is neither new nor known.
    """
    train = dataset.of("train").rows
    known = record.photos.of("train").rows
    pairs = set(zip(known.digest, known.class_name, strict=True))
    is_known = pd.Series([pair in pairs for pair in zip(train.digest, train.class_name, strict=True)], dtype=bool)
    is_new = record.not_left_out(dataset.of("train")) | train.digest.isin(known.digest)
    new, old = train[is_new & ~is_known], train[is_known]
    if not len(new):
        return WarmPhotos(dataset.with_rows(new.reset_index(drop=True)), 0, 0)
    count = REPLAY * len(new)
    drawn = old.head(count).index  # rows are ordered by digest
    rank = old.groupby("class_index").cumcount()
    least = rank[rank < REPLAY_PER_CLASS].sort_values(kind="stable").head(max(_TIMES_REPLAY * count, _ALWAYS))
    replayed = drawn.union(least.index)
    rows = train.loc[new.index.union(replayed).sort_values()].reset_index(drop=True)
    return WarmPhotos(dataset.with_rows(rows), len(new), len(replayed))


def warm_settings(settings: FineTune) -> FineTune:
    """Return the settings of a warm run: fewer epochs, at a smaller learning rate."""
    return settings.model_copy(update={"epochs": WARM_EPOCHS, "learning_rate": settings.learning_rate * _WARM_RATE})


@dataclass(frozen=True, slots=True)
class Start:
    """The networks that a warm run starts from."""

    backbone: Backbone
    base: Network
    head: Head  # today's, which was trained on the frozen backbone
    train_images: int  # of today, visited or not


def train_warm(
    start: Start, images: TrainingImages, plan: Plan, *, checkpoint: Checkpoint, on_epoch: Callable[[Epoch], None]
) -> tuple[Network, FineTuned]:
    """Train the base further on the images of train, and blend it with today's head alone as val decides.

    Returns:
        The network that is used, and the result of the training.

    Args:
        start: the networks.
        images: train from `warm_photos`, and may be empty: then nothing is trained. Val has no photo of the base, nor
            near-duplicates of these.
        plan: with `warm_settings`.
        checkpoint: of this training.
        on_epoch: called after each epoch.
    """
    settings, cut, objective = plan.settings, start.backbone.cut, objective_of(plan.class_weight)
    is_alike = _shape_of(start.head) == _shape_of(start.base.head)
    head, usual = start.head if is_alike else start.base.head, usual_of(start.train_images)
    model = build_network(start.backbone, Network("head", head, {}))
    pretrained = weights_of(model)
    prior = (
        class_prior(plan.class_weight, images.train.class_indices, images.num_classes) if len(images.train) else None
    )
    trainer = start_trainer(model, cut, settings.layers, prior)
    alone = trainer.weights()
    load_into(model, start.base)
    curve = Training(trainer, images, plan, checkpoint).run(on_epoch) if len(images.train) else []
    if is_alike:
        chosen = blend(trainer, (alone, trainer.weights()), images.val, objective, usual=usual)
    else:  # no weights lie between heads of two shapes
        model_alone = build_network(start.backbone, Network("head", start.head, {}))
        ends = {0.0: start_trainer(model_alone, cut, settings.layers), 1.0: trainer}
        predictions = {alpha: each.predict(images.val) for alpha, each in ends.items()}
        usual = float(usual > _USUAL_OF_FEW)
        chosen = choose(predictions, images.val.class_indices, objective, usual=usual)
    result = FineTuned(settings, objective, _words(chosen, objective), curve, chosen)
    if not result.is_used:
        return Network("head", start.head, {}), result
    return network_of(model, head.settings, result.trained, pretrained), result


def _shape_of(head: Head) -> tuple[Any, ...]:
    """Return the properties that two heads must share for weights between them to be a head."""
    return (head.settings.hidden_units, head.settings.activation, *(weight.shape for weight in head.weights))
