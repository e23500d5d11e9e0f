"""A warm night: from the base, one or two epochs over what is new and a replay sample of what the base knows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from regraft.backbones.catalogue import Backbone
from regraft.core.config import FineTune
from regraft.photos.base_record import BaseRecord
from regraft.photos.dataset import Dataset
from regraft.training.batched_heads import HeadSettings
from regraft.training.blending import Blend, blend, choose, usual_of
from regraft.training.checkpoints import Checkpoint
from regraft.training.class_weights import objective_of, prior_of
from regraft.training.fine_tune import FineTuned, fine_tuned, start_trainer
from regraft.training.inputs import Images, TrainingImages
from regraft.training.keras_models import Epoch
from regraft.training.keras_network import build_network
from regraft.training.network_file import Head, Network, load_into, network_of, weights_of
from regraft.training.trainer import Trainer
from regraft.training.training_loop import Plan, Training

# Where nothing is fine-tuned, nobody reads the head of the base: one without features and classes costs nothing.
_NO_HEAD = Head(HeadSettings(0, "relu", "adamw", 0.0, 1.0, 0.0, 0.0), [np.zeros((0, 0)), np.zeros(0)])
_HALF_WAY = 0.5
NO_BASE = Network("head", _NO_HEAD, {})
# A run forgets by its steps, and few new photos make few. So what is replayed of every class is no more than a few
# times what is replayed for the new ones; ten batches are seconds, and enough for 32 classes of 10 photos.
_TIMES_REPLAY, _ALWAYS = 4, 320


@dataclass(frozen=True, slots=True)
class WarmPhotos:
    """The photos of train that a warm night visits."""

    photos: Dataset  # of split train, ordered by digest
    new: int  # the base was not trained on them, or under another label
    replayed: int


def warm_photos(dataset: Dataset, record: BaseRecord, settings: FineTune) -> WarmPhotos:
    """Choose the photos of a warm night; a photo that is gone is not among them.

    The sample is a function of the photos and the settings: of those that the base was trained on, the ones with the
    smallest digests, which are as good as drawn at random. Of each class there are enough that it is not forgotten;
    where that would be far more than the new photos call for, the first photo of each class comes before any second.

    Args:
        dataset: today's photos, or the sample of them that is fine-tuned on.
        record: of the base. What its sample left out is neither new nor known.
        settings: `replay` photos per new one are replayed, and `replay_per_class` of each class at least, but of all
            classes together at most four times `replay` per new photo, or 320.
    """
    train = dataset.of("train").rows
    known = record.photos.of("train").rows
    pairs = set(zip(known.digest, known.class_name, strict=True))
    is_known = pd.Series([pair in pairs for pair in zip(train.digest, train.class_name, strict=True)], dtype=bool)
    is_new = record.not_left_out(dataset.of("train")) | train.digest.isin(known.digest)
    new, old = train[is_new & ~is_known], train[is_known]
    if not len(new):
        return WarmPhotos(dataset.with_rows(new.reset_index(drop=True)), 0, 0)
    count = settings.replay * len(new)
    drawn = old.head(count).index  # rows are ordered by digest
    rank = old.groupby("class_index").cumcount()
    least = rank[rank < settings.replay_per_class].sort_values(kind="stable").head(max(_TIMES_REPLAY * count, _ALWAYS))
    replayed = drawn.union(least.index)
    rows = train.loc[new.index.union(replayed).sort_values()].reset_index(drop=True)
    return WarmPhotos(dataset.with_rows(rows), len(new), len(replayed))


def warm_settings(settings: FineTune) -> FineTune:
    """Return the settings of a warm night's training: fewer epochs, at a smaller learning rate."""
    rate = settings.learning_rate * settings.warm_rate
    return settings.model_copy(update={"epochs": settings.warm_epochs, "learning_rate": rate})


@dataclass(frozen=True, slots=True)
class Start:
    """What a night starts from."""

    backbone: Backbone
    base: Network
    head: Head  # today's, which was trained on the frozen backbone
    train_images: int  # that there are today, visited or not


def train_warm(
    start: Start, images: TrainingImages, plan: Plan, *, checkpoint: Checkpoint, on_epoch: Callable[[Epoch], None]
) -> tuple[Network, FineTuned]:
    """Train the base further on the images of train, and choose weights between it and today's head alone on val.

    Returns:
        The network that is used, and what came of the training.

    Args:
        start: what the night starts from.
        images: train from `warm_photos`, and may be empty: then nothing is trained. Val has none that the base was
            trained on, nor near-duplicates of these.
        plan: with `warm_settings`.
        checkpoint: of this training.
        on_epoch: called after each epoch.
    """
    settings, cut, objective = plan.settings, start.backbone.cut, objective_of(plan.class_weight)
    is_alike = _shape_of(start.head) == _shape_of(start.base.head)
    head = start.head if is_alike else start.base.head
    model = build_network(start.backbone, Network("head", head, {}))
    pretrained = weights_of(model)
    prior = prior_of(plan.class_weight, images.train.class_indices, images.num_classes) if len(images.train) else None
    trainer = start_trainer(model, cut, settings, prior)
    alone = trainer.weights()
    load_into(model, start.base)
    curve = Training(trainer, images, plan, checkpoint).run(on_epoch) if len(images.train) else []
    if is_alike:
        usual = usual_of(start.train_images)
        chosen = blend(trainer, (alone, trainer.weights()), images.val, objective, usual=usual)
    else:
        chosen = _one_or_the_other(start, trainer, images.val, plan)
    result = fine_tuned(chosen, curve, settings, objective)
    if not result.is_used:
        return Network("head", start.head, {}), result
    return network_of(model, head.settings, result.trained, pretrained), result


def _one_or_the_other(start: Start, tuned: Trainer, val: Images, plan: Plan) -> Blend:
    """Choose where today's head is of another shape than that of the base, so that no weights lie between the two."""
    head_alone = build_network(start.backbone, Network("head", start.head, {}))
    ends = {0.0: start_trainer(head_alone, start.backbone.cut, plan.settings), 1.0: tuned}
    said = {alpha: trainer.predict(val) for alpha, trainer in ends.items()}
    usual = float(usual_of(start.train_images) > _HALF_WAY)  # there is nothing in between
    return choose(said, val.class_indices, objective_of(plan.class_weight), usual=usual)


def _shape_of(head: Head) -> tuple[Any, ...]:
    """Return what has to be equal for weights between two heads to be a head."""
    return (head.settings.hidden_units, head.settings.activation, *(weight.shape for weight in head.weights))
