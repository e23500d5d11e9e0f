"""Beside the stages: try a backbone on the photos of build/dataset.parquet. No output of a stage changes.

It runs frozen over the train and val photos once, and a head on its features is the judge. What it computes stays in
the store.
"""

import tempfile
from pathlib import Path

from regraft.backbones.selection import Compared, milliseconds_per_image
from regraft.core.config import BackboneChoice, Params
from regraft.core.errors import RegraftError, WrongFolder
from regraft.training.baselines import probe
from regraft.training.heads import MAX_PHOTOS, Rows, settings_of, train_heads
from tasks.progress import Progress
from tasks.stage_inputs import StageInputs


def compare(name: str, params: Params, progress: Progress) -> Compared:
    """Return the figures of a backbone with its own weights, preprocessing, image size and cut.

    Args:
        name: from the catalogue, or `name=weights` with what `backbone.weights` may be.
        params: the judge is the first combination of the sweep in `train_head`.
        progress: counts views.
    """
    paths = params.paths
    if not paths.dataset.exists():
        raise WrongFolder(
            f"there is no {paths.dataset}, which names the photos and their splits. Run `dvc repro preprocess` first."
        )
    views = params.cache_features.model_copy(update={"views": 0})
    tried = params.model_copy(update={"backbone": _choice(name, params.backbone), "cache_features": views})
    inputs = StageInputs(tried, progress)
    dataset = inputs.dataset.of("train", "val")
    try:
        trunk = inputs.trunk
    except RegraftError as error:
        return Compared(name, problem=str(error))
    with tempfile.TemporaryDirectory() as temporary, inputs.store_in_use():
        receipt = inputs.extractor.fill_store(dataset, activations="none", on_progress=progress("views"))
        features = inputs.features_of(dataset, Path(temporary, "features.arrow"))
        settings = settings_of(params.train_head)[:1]
        rows, class_weight = Rows.of(features).sample(MAX_PHOTOS), params.train_head.class_weight
        (head,) = train_heads(rows, settings, class_weight, seed=params.seed, on_epoch=lambda _: None)
        return Compared(
            name=name,
            right=head.right,
            val_log_loss=head.best.val.log_loss,
            nearest_neighbours=float(probe(rows).nearest_neighbours.mean()),
            milliseconds=milliseconds_per_image(trunk),
            megabytes=trunk.read_graph().ByteSize() / 1e6,
            feature_dim=trunk.feature_dim,
            computed=receipt.computed,
        )


def _choice(name: str, choice: BackboneChoice) -> BackboneChoice:
    """The settings that `name` or `name=weights` stands for; the engine is the project's."""
    name, _, weights = name.partition("=")
    usual = "own" if name.endswith(".keras") else "imagenet"
    return choice.model_copy(
        update={
            "name": name,
            "weights": None if weights == "null" else weights or usual,
            "preprocessing": "auto",
            "image_size": "auto",
            "cut": "auto",
        }
    )
