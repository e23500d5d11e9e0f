"""Which backbone suits these photos? Each runs frozen over them once, and a head on its features is the judge."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.backbones.catalogue import choose_backbone
from regraft.backbones.trunk import Trunk, load_trunk
from regraft.config import Params
from regraft.errors import RegraftError
from regraft.features.extraction import extract_missing, open_feature_store
from regraft.features.table import read_features, write_features
from regraft.files import replacing
from regraft.photos.dataset import Dataset
from regraft.photos.views import choose_views
from regraft.store.leases import store_in_use
from regraft.training.baselines import probe
from regraft.training.heads import settings_of, train_heads

_TIMED_IMAGES, _TIMED_ROUNDS = 8, 3


@dataclass(frozen=True, slots=True)
class Compared:
    """What a backbone came to, or why it could not be tried."""

    name: str
    val_accuracy: float | None = None  # of a head trained on its features
    val_log_loss: float | None = None
    nearest_neighbours: float | None = None  # accuracy on val without training
    milliseconds: float | None = None  # per image, frozen, measured on this machine
    megabytes: float | None = None  # of its ONNX graph
    feature_dim: int | None = None
    computed: int = 0  # forward passes that were not in the store
    problem: str = ""


def compare_backbone(name: str, dataset: Dataset, params: Params, on_progress: Callable[[int, int], None]) -> Compared:
    """Try one backbone with its own weights, preprocessing, image size and cut; what it computes stays in the store.

    The judge is the section `train_head` of params.yaml, the first combination of a sweep.

    Args:
        name: from the catalogue, or `name=weights` with what `backbone.weights` may be.
        dataset: its train and val images are used.
        params: everything else.
        on_progress: called with the number of views done and their total.
    """
    backbone_name, _, weights = name.partition("=")
    usual = "own" if backbone_name.endswith(".keras") else "imagenet"
    choice = params.backbone.model_copy(
        update={
            "name": backbone_name,
            "weights": None if weights == "null" else weights or usual,
            "preprocessing": "auto",
            "image_size": "auto",
            "cut": "auto",
        }
    )
    paths, machine = params.paths, params.machine
    dataset = dataset.of("train", "val")
    try:
        backbone = choose_backbone(choice)
        trunk = load_trunk(backbone, paths.store / "graphs")
    except RegraftError as error:
        return Compared(name, problem=str(error))
    views = choose_views(params.preprocess, image_size=backbone.image_size, count=0)
    with store_in_use(paths.store, machine.shared_store), tempfile.TemporaryDirectory() as temporary:
        store = open_feature_store(paths.store, trunk, shared=machine.shared_store)
        receipt = extract_missing(
            dataset,
            paths.raw,
            views,
            trunk,
            store,
            with_activations=False,
            verify_activations=False,
            batch_size=machine.batch_size,
            workers=machine.workers,
            on_progress=on_progress,
        )
        file = Path(temporary, "features.arrow")
        write_features(file, store.features, dataset, views)
        features = read_features(file)
        settings = settings_of(params.train_head)[:1]
        (head,) = train_heads(features, settings, params.train_head, seed=params.seed, on_epoch=lambda _: None)
        return Compared(
            name=name,
            val_accuracy=head.best.val.accuracy,
            val_log_loss=head.best.val.log_loss,
            nearest_neighbours=probe(features).nearest_neighbours,
            milliseconds=_milliseconds(trunk),
            megabytes=trunk.path.stat().st_size / 1e6,
            feature_dim=trunk.feature_dim,
            computed=receipt.computed,
        )


def rank(compared: Sequence[Compared]) -> pd.DataFrame:
    """Return a table, the most accurate backbone on val first; those that could not be tried come last."""
    table = pd.DataFrame([asdict(each) for each in compared]).astype({"feature_dim": "Int64"})
    return table.sort_values(["val_accuracy", "val_log_loss"], ascending=[False, True]).reset_index(drop=True)


def write_ranking(path: Path, ranking: pd.DataFrame) -> None:
    """Write the table as CSV."""
    with replacing(path) as temporary:
        ranking.to_csv(temporary, index=False)


def in_words(ranking: pd.DataFrame, val_images: int) -> str:
    """Say which backbone to take: the fastest of those that are not worse than the best by more than noise."""
    tried = ranking[ranking.problem == ""]
    problems = "".join(
        f"\n{each.name} could not be tried: {each.problem}"
        for each in ranking[ranking.problem != ""].itertuples(index=False)
    )
    return (_choice_in_words(tried, val_images) if len(tried) else "No backbone could be tried.") + problems


def _choice_in_words(tried: pd.DataFrame, val_images: int) -> str:
    best: Any = tried.iloc[0]
    noise = float(np.sqrt(max(best.val_accuracy * (1 - best.val_accuracy), 1 / val_images) / val_images))
    good = tried[tried.val_accuracy >= best.val_accuracy - noise]
    choice: Any = good.loc[good.milliseconds.idxmin()]
    words = f"The most accurate is {best['name']} ({best.val_accuracy:.3f} on {val_images} val photos)."
    if choice["name"] != best["name"]:
        words += (
            f" {choice['name']} is within one standard error of it ({choice.val_accuracy:.3f}) and takes "
            f"{choice.milliseconds / best.milliseconds:.0%} of its time."
        )
    return words


def _milliseconds(trunk: Trunk) -> float:
    """Per image, the best of some rounds, so that what else runs counts little."""
    images = np.zeros((_TIMED_IMAGES, trunk.image_size, trunk.image_size, 3), np.uint8)
    trunk.run(images[:1], with_activations=False)
    rounds = []
    for _ in range(_TIMED_ROUNDS):
        start = time.perf_counter()
        trunk.run(images, with_activations=False)
        rounds.append(time.perf_counter() - start)
    return 1000 * min(rounds) / _TIMED_IMAGES
