"""Stage 7 of 11: train the base, from the frozen backbone and a head of its own, on the photos of its record.

Reads build/base_photos.parquet, which has the settings too, and the store (or data/raw for what the store lost); writes
models/base.npz, reports/base_training.json and reports/base_curve.csv. Until these are written, the last finished epoch
is kept in build/base: after a kill the next run goes on there. Where build/dataset.parquet says that a photo has
another name by now, it is read there; nothing else depends on that file.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from regraft.core.config import Params
from regraft.core.errors import Damaged
from regraft.core.files import fingerprint, reading, write_json
from regraft.photos.base_record import BaseRecord, located
from regraft.photos.dataset import Dataset
from regraft.training.fine_tune import (
    NO_BASE,
    facts_of,
    open_checkpoint,
    start_trainer,
    trained_by,
    why_not_to_train,
)
from regraft.training.heads import MAX_EPOCHS, find_head
from regraft.training.keras_network import build_network, network_of, weights_of
from regraft.training.metrics import Epoch, class_prior, write_curve
from regraft.training.network_file import Head, Network, start_keras, write_network
from regraft.training.training_loop import Plan, Training, training_images
from tasks.progress import Progress
from tasks.stage import stage
from tasks.stage_inputs import StageInputs

_LEAST = 0.5  # share of the record's photos that a base can be trained on; with fewer there is none


@dataclass(frozen=True, slots=True)
class _Base:
    """What became of the training."""

    network: Network  # of kind `head` where there is no base to start from
    reason: str  # why there is one, or none
    curve: list[Epoch] = field(default_factory=list)
    lost: int = 0  # photos of the record that are nowhere any more


@stage
def train_base(params: Params, progress: Progress) -> None:
    """Write the network that nights start from; where nothing is fine-tuned, one that says so."""
    paths, record = params.paths, StageInputs(params, progress).base_record
    if len(record.photos):
        base = _train(record, StageInputs(_as_recorded(params, record), progress), progress)
    else:
        base = _Base(NO_BASE, "Fine-tuning is off, so there is no base.")
    write_network(paths.base, base.network)
    report: dict[str, Any] = {"trained": base.network.trained, "reason": base.reason, "lost": base.lost}
    if base.curve:
        first, last = base.curve[0], base.curve[-1]
        report |= {"epochs_run": last.epoch, "val": asdict(last.val), "head_alone": asdict(first.val)}
    write_json(paths.reports / "base_training.json", report)
    write_curve(paths.reports / "base_curve.csv", base.curve)
    print(f"train_base: {base.reason}")
    shutil.rmtree(_folder(params), ignore_errors=True)  # also of trainings that were never finished


def _train(record: BaseRecord, inputs: StageInputs, progress: Progress) -> _Base:
    recorded = inputs.params
    with inputs.store_in_use():
        photos = inputs.available(_at_their_places(record, inputs))
        lost = len(record.photos) - len(photos)
        if record.is_sample and not lost and not _is_whole(photos):
            return _Base(NO_BASE, "There is no base: the sample lacks photos of a class. Raise fine_tune.max_photos.")
        if len(photos) < _LEAST * len(record.photos) or not _is_whole(photos):
            words = (
                f"There is no base: {lost:,} of the {len(record.photos):,} photos of its record are neither in "
                f"{recorded.paths.raw} nor in the store. `regraft retrain --renew-base` takes today's photos."
            )
            return _Base(NO_BASE, words, lost=lost)
        head = _find_head(photos, inputs, progress)
        start_keras(recorded.seed)
        return _tune(head, photos, inputs, progress, lost)


def _plan(recorded: Params) -> Plan:
    return Plan(recorded.fine_tune, recorded.train_head.class_weight, recorded.seed)


def _at_their_places(record: BaseRecord, inputs: StageInputs) -> Dataset:
    with suppress(FileNotFoundError, Damaged):
        return located(record, inputs.dataset)
    return record.photos


def _is_whole(photos: Dataset) -> bool:
    """Whether every class can be trained, and there is something to choose a head on."""
    classes = set(photos.of("train").rows.class_index)
    return len(classes) == len(photos.class_names) and len(photos.of("val")) > 0


def _find_head(photos: Dataset, inputs: StageInputs, progress: Progress) -> Head:
    """Find the head as `train_head` does: that of today is another one as soon as a photo has changed."""
    recorded = inputs.params
    path = _folder(recorded) / "features.arrow"

    def watch(what: str) -> Callable[[int], None]:
        epochs_done = progress(f"{what} epochs")
        return lambda epoch: epochs_done(epoch, MAX_EPOCHS)

    winner, _ = find_head(inputs.features_of(photos, path), recorded.train_head, seed=recorded.seed, watch=watch)
    path.unlink()
    return Head(winner.settings, winner.weights)


def _tune(head: Head, photos: Dataset, inputs: StageInputs, progress: Progress, lost: int) -> _Base:
    recorded = inputs.params
    settings, plan, backbone = recorded.fine_tune, _plan(recorded), inputs.backbone
    images = training_images(photos, inputs.reader_of)
    model = build_network(backbone, Network("head", head, {}))
    pretrained = weights_of(model)
    facts = facts_of(backbone, inputs.views, plan, files=[recorded.paths.base_photos]) | inputs.checkpoint_facts
    facts |= {
        "photos": fingerprint(photos.rows.digest.tolist()),
        "head": fingerprint([weight.tobytes().hex() for weight in head.weights]),
    }
    prior = class_prior(plan.class_weight, images.train.class_indices, images.num_classes)
    trainer = start_trainer(model, backbone.cut, settings.layers, prior)
    training = Training(trainer, images, plan, open_checkpoint(_folder(recorded), facts))
    if settings.mode == "auto" and (reason := why_not_to_train(training, settings)):
        again = "`dvc repro -sf train_base` tries again, for instance on another machine."
        return _Base(Network("head", head, {}), f"{reason} {again}", lost=lost)
    epochs_done = progress("epochs")
    curve = training.run(lambda epoch: epochs_done(epoch.epoch, settings.epochs))
    gone = f"; {lost:,} of the record {'is' if lost == 1 else 'are'} nowhere any more" if lost else ""
    words = f"The base was trained on {len(images.train):,} photos for {curve[-1].epoch} epochs{gone}."
    return _Base(network_of(model, head.settings, trained_by(settings), pretrained), words, curve, lost)


def _as_recorded(today: Params, record: BaseRecord) -> Params:
    """Return today's paths and machine with the settings of a record."""
    # `paths` stays the checked object: the store that was found may lie outside the project, which no text may name.
    contents: dict[str, Any] = today.model_dump(mode="json", exclude={"paths"}) | {"paths": today.paths}
    for name, settings in record.settings.items():
        contents[name] = contents[name] | settings if isinstance(settings, dict) else settings
    with reading(today.paths.base_photos, "settings that a base may have"):
        return Params.model_validate(contents)


def _folder(params: Params) -> Path:
    return params.paths.features.with_name("base")


if __name__ == "__main__":
    train_base.run()
