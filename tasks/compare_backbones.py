"""Beside the stages: try a backbone on the photos of build/dataset.parquet. No output of a stage changes.

It runs frozen over the train and val photos once, and a head on its features is the judge. What it computes stays in
the store.
"""

import tempfile
from pathlib import Path

from regraft.backbones.catalogue import choose_backbone
from regraft.backbones.selection import Compared, milliseconds_per_image
from regraft.backbones.trunk import Trunk
from regraft.core.config import BackboneChoice, Params
from regraft.core.errors import RegraftError, WrongFolder
from regraft.features.extraction import Extractor
from regraft.features.forward_passes import load_stored_trunk, open_feature_store
from regraft.features.table import Features, read_features, write_named_features
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.elsewhere import elsewhere_of
from regraft.photos.views import choose_views
from regraft.store.leases import store_in_use
from regraft.training.baselines import probe
from regraft.training.heads import MAX_PHOTOS, Rows, settings_of, train_heads
from tasks.chosen_cluster import chosen_cluster
from tasks.progress import Progress


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
    dataset = read_dataset(paths.dataset, paths.raw, elsewhere_of(params)).of("train", "val")
    try:
        backbone = choose_backbone(_choice(name, params.backbone))
        trunk = load_stored_trunk(backbone, paths.store, shared=params.machine.shared_store)
    except RegraftError as error:
        return Compared(name, problem=str(error))
    in_use = store_in_use(paths.store, params.machine.shared_store)
    with tempfile.TemporaryDirectory() as temporary, in_use:
        features, computed = _features(Path(temporary, "features.arrow"), dataset, trunk, params, progress)
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
            computed=computed,
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


def _features(path: Path, dataset: Dataset, trunk: Trunk, params: Params, progress: Progress) -> tuple[Features, int]:
    """Compute the features of every unchanged photo; return them, and how many forward passes they took."""
    paths, machine = params.paths, params.machine
    views = choose_views(params.preprocess, image_size=trunk.image_size, count=0)
    store = open_feature_store(paths.store, trunk, shared=machine.shared_store, mirror=machine.shared_mirror)
    extractor = Extractor(views, trunk, store, machine, chosen_cluster(machine))
    receipt = extractor.fill_store(dataset, activations="none", on_progress=progress("views"))
    write_named_features(path, extractor, dataset)
    return read_features(path, find_rows=store.find_rows), receipt.computed
