"""What networks between the head alone and the fine-tuned one say of val and test photos, recorded in one training."""

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.support.projects import features_in, run_stage, stages_folder
from regraft.backbones.catalogue import choose_backbone
from regraft.backbones.trunk import load_trunk
from regraft.core.config import Params
from regraft.core.files import replacing
from regraft.core.params_file import load_params
from regraft.features.extraction import Extractor
from regraft.features.forward_passes import open_feature_store
from regraft.features.table import Features
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.views import choose_views
from regraft.training.fine_tune import ALPHAS, between, start_trainer
from regraft.training.heads import find_head
from regraft.training.keras_network import join, to_keras
from regraft.training.metrics import class_prior, log_losses
from regraft.training.network_file import start_keras
from regraft.training.trainer import Images
from regraft.training.training_loop import Checkpoint, Plan, Training, cached_activations, training_images


@dataclass(frozen=True, slots=True)
class Said:
    """What was said of the photos of one split."""

    class_indices: np.ndarray  # the true classes, shape (n,)
    probabilities: np.ndarray  # float32, shape (len(ALPHAS), n, num_classes)

    def is_right(self) -> np.ndarray:
        """Return whether a photo is named rightly, bool, shape (len(ALPHAS), n)."""
        return self.probabilities.argmax(axis=2) == self.class_indices

    def losses(self) -> np.ndarray:
        """Return the log loss of each photo, float64, shape (len(ALPHAS), n)."""
        return np.stack([log_losses(self.class_indices, each) for each in self.probabilities])


Recorded = dict[str, Said]  # by split: val and test


def prepare(project: Path, raw: Path) -> None:
    """Run the stages before the head in a folder, unless they were run there before."""
    if not (project / "build" / "features.arrow").is_file():
        shutil.rmtree(project, ignore_errors=True)  # an interrupted call left it
        stages_folder(project, raw, ["expectations.enough_images_per_class.min_value=1"])
        for stage in ("validate_data", "preprocess", "cache_features"):
            run_stage(stage, project, log=project / f"{stage}.log")


def train_images(project: Path, shots: int | None) -> int:
    """Return on how many photos `recorded` trains."""
    params = load_params(project / "params.yaml")
    train = read_dataset(project / params.paths.dataset, project / params.paths.raw).of("train").rows
    return len(train.groupby("class_index").head(shots) if shots else train)


def recorded(project: Path, *, seed: int, shots: int | None) -> Recorded:
    """Train head and network as the default does, unless that was done before; return what was said.

    Args:
        project: from `prepare`; what was said is kept in it.
        seed: of head and fine-tuning.
        shots: training photos of each class, at most; None for all.
    """
    path = project / f"said-{shots or 'all'}-{seed}.npz"
    if not path.is_file():
        arrays = {}
        for split, said in _train(project, seed, shots).items():
            arrays |= {f"{split}_classes": said.class_indices, split: said.probabilities}
        with replacing(path) as draft, draft.open("wb") as file:
            np.savez(file, **arrays)
    with np.load(path) as arrays:
        return {split: Said(arrays[f"{split}_classes"], arrays[split]) for split in ("val", "test")}


def _train(project: Path, seed: int, shots: int | None) -> Recorded:
    params = load_params(project / "params.yaml")
    dataset = read_dataset(project / params.paths.dataset, project / params.paths.raw)
    with features_in(project) as features:
        if shots:
            dataset, features = _fewer(dataset, features, shots)
        winner, _ = find_head(features, params.train_head, seed=seed, watch=lambda _: lambda epoch: None)
    start_keras(seed)
    backbone = choose_backbone(params.backbone)
    model = join(backbone, to_keras(winner))
    inputs_of = partial(_inputs, project=project, params=params, seed=seed)
    images, test = training_images(dataset, inputs_of), dataset.of("test")
    photos = {"val": images.val, "test": Images(inputs_of(test), test.rows.class_index.to_numpy())}
    class_weight = params.train_head.class_weight
    prior = class_prior(class_weight, images.train.class_indices, images.num_classes)
    trainer = start_trainer(model, backbone.cut, params.fine_tune.layers, prior)
    alone, checkpoint = trainer.weights(), Checkpoint(project / f"checkpoint-{shots}-{seed}.npz")
    Training(trainer, images, Plan(params.fine_tune, class_weight, seed), checkpoint).run(lambda _: None)
    checkpoint.path.unlink()
    tuned = trainer.weights()
    said: dict[str, list[np.ndarray]] = {split: [] for split in photos}
    for alpha in ALPHAS:
        trainer.set_weights(between(alone, tuned, alpha))
        for split, those in photos.items():
            said[split].append(trainer.predict(those))
    return {split: Said(photos[split].class_indices, np.stack(said[split])) for split in photos}


def _inputs(dataset: Dataset, *, project: Path, params: Params, seed: int):
    """Return what reads the activations of one split, those of test too, which no stage computes."""
    backbone = choose_backbone(params.backbone)
    trunk = load_trunk(backbone, project / params.paths.store / "graphs")
    store = open_feature_store(project / params.paths.store, trunk)
    views = choose_views(params.preprocess, image_size=backbone.image_size, count=params.cache_features.views)
    as_val = dataset.with_rows(dataset.rows.assign(split=dataset.rows.split.replace("test", "val")))
    extractor = Extractor(views, trunk, store, params.machine)
    extractor.fill_store(as_val, activations="stored", on_progress=lambda done, total: None)
    return cached_activations(as_val, store.activations, views, seed=seed)


def _fewer(dataset: Dataset, features: Features, shots: int) -> tuple[Dataset, Features]:
    """Keep so many training photos of each class, the same ones for every seed."""
    rows = dataset.rows
    train = rows[rows.split == "train"]
    left_out = set(train.digest) - set(train.groupby("class_index").head(shots).digest)  # ordered by digest
    is_left_out = np.array([digest in left_out for digest in features.digests])
    part = replace(features, splits=np.where(is_left_out, "unused", features.splits))
    return dataset.with_rows(rows[~rows.digest.isin(left_out)].reset_index(drop=True)), part
