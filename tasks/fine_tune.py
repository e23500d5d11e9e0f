"""Stage 8 of 11: train the base further on new photos, and choose weights between that and today's head alone.

Reads models/base.npz with its record and its report, models/head.npz, build/dataset.parquet, build/left_out.parquet
and the store (or data/raw for lost activations, and for pixels where all layers are trained); writes models/model.npz,
reports/fine_tune.json and reports/fine_tune_curve.csv. Until then the last finished epoch is in build/fine_tune: after
a kill the next run resumes there.
"""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from regraft.core.config import Params
from regraft.core.files import fingerprint, read_json, write_json
from regraft.photos.base_record import BaseRecord
from regraft.training.fine_tune import (
    WARM_EPOCHS,
    FineTuned,
    Start,
    WarmPhotos,
    facts_of,
    open_checkpoint,
    switched_off,
    train_warm,
    warm_photos,
    warm_settings,
)
from regraft.training.metrics import write_curve
from regraft.training.network_file import Head, Network, read_head, read_network, start_keras, write_network
from regraft.training.training_loop import Plan, training_images
from tasks.progress import Progress
from tasks.stage import stage
from tasks.stage_inputs import StageInputs


@stage
def fine_tune(params: Params, progress: Progress) -> None:
    """Write the whole network: a blend of the fine-tuned base and today's head alone, as val decides."""
    settings, paths = params.fine_tune, params.paths
    head = read_head(paths.head)
    network, result = Network("head", head, {}), switched_off(settings, params.train_head.class_weight)
    facts: dict[str, Any] = {}
    if settings.mode != "off":
        base, told = read_network(paths.base), read_json(paths.reports / "base_training.json", "reason")
        if base.trained == "head":
            result = replace(result, reason=told["reason"])
        else:
            network, result, facts = _tune(head, base, params, StageInputs(params, progress), progress)
    report = result.as_report() | facts
    write_network(paths.model, network)
    write_json(paths.reports / "fine_tune.json", report)
    write_curve(paths.reports / "fine_tune_curve.csv", result.curve)
    print(f"fine_tune: {report['reason']}")
    shutil.rmtree(_checkpoints(params), ignore_errors=True)  # also of trainings that were never finished


def _tune(
    head: Head, base: Network, params: Params, inputs: StageInputs, progress: Progress
) -> tuple[Network, FineTuned, dict[str, Any]]:
    """Return the network that is used, the result of the training, and further lines of the report."""
    paths, settings = params.paths, params.fine_tune
    record, sample, dataset = inputs.base_record, inputs.fine_tuned, inputs.unseen
    chosen, val = warm_photos(dataset, record), dataset.of("val")
    photos = dataset.with_rows(pd.concat([chosen.photos.rows, val.rows], ignore_index=True))
    start_keras(params.seed)
    plan = Plan(warm_settings(settings), params.train_head.class_weight, params.seed)
    files = [paths.base, paths.head, paths.dataset, paths.left_out]
    facts = facts_of(inputs.backbone, inputs.views, plan, files=files)
    facts["photos"] = fingerprint(photos.rows[["digest", "class_name", "split"]].to_numpy(str).tolist())
    epochs_done = progress("epochs")
    with inputs.store_in_use():
        if settings.layers != "all":
            inputs.fill_store(photos)
        network, result = train_warm(
            Start(inputs.backbone, base, head, len(dataset.of("train"))),
            training_images(photos, inputs.reader_of),
            plan,
            checkpoint=open_checkpoint(_checkpoints(params), facts | inputs.checkpoint_facts),
            on_epoch=lambda epoch: epochs_done(epoch.epoch, WARM_EPOCHS),
        )
    is_sample = record.is_sample or len(sample) < len(inputs.dataset.of("train", "val"))
    report: dict[str, Any] = {
        "reason": f"{_kind(chosen, record, is_sample)} {result.reason}",
        "new": chosen.new,
        "replayed": chosen.replayed,
    }
    scores = result.blend.scores if result.blend else {}
    if result.blend and scores:
        report |= {"val": asdict(scores[result.blend.alpha]), "head_alone": asdict(scores[min(scores)])}
    return network, result, report | {"left_out": len(sample.of("val")) - len(val)}


def _kind(chosen: WarmPhotos, record: BaseRecord, is_sample: bool) -> str:
    """Return the kind of run in a sentence; `is_sample` says whether a sample was chosen, today or before."""
    train = "the sample of train (fine_tune.max_photos)" if is_sample else "train"
    base = f"the base, trained on {len(record.photos.of('train')):,} photos,"
    if not chosen.new:
        return f"{base.capitalize()} has seen every photo of {train}, so it is not trained further."
    return (
        f"A warm run: from {base} to the {chosen.new:,} of {train} that are new, with {chosen.replayed:,} "
        f"that it knows."
    )


def _checkpoints(params: Params) -> Path:
    return params.paths.features.with_name("fine_tune")


if __name__ == "__main__":
    fine_tune.run()
