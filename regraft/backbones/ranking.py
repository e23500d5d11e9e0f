"""Which backbone suits these photos? A table of what each came to, and which to take."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.backbones.trunk import Trunk
from regraft.csv_files import write_csv

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


def rank(compared: Sequence[Compared]) -> pd.DataFrame:
    """Return a table, the most accurate backbone on val first; those that could not be tried come last."""
    table = pd.DataFrame([asdict(each) for each in compared]).astype({"feature_dim": "Int64"})
    return table.sort_values(["val_accuracy", "val_log_loss"], ascending=[False, True]).reset_index(drop=True)


def write_ranking(path: Path, ranking: pd.DataFrame) -> None:
    """Write the table as CSV."""
    write_csv(path, ranking)


def recommendation(ranking: pd.DataFrame, val_images: int) -> str:
    """Say which backbone to take: the fastest of those that are not worse than the best by more than noise.

    Args:
        ranking: from `rank`.
        val_images: how many photos the accuracies were measured on.
    """
    tried = ranking[ranking.problem == ""]
    problems = "".join(
        f"\n{each.name} could not be tried: {each.problem}"
        for each in ranking[ranking.problem != ""].itertuples(index=False)
    )
    return (_choice(tried, val_images) if len(tried) else "No backbone could be tried.") + problems


def _choice(tried: pd.DataFrame, val_images: int) -> str:
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


def milliseconds_per_image(trunk: Trunk) -> float:
    """Measure how long one forward pass takes: the best of some rounds, so that other load counts little."""
    images = np.zeros((_TIMED_IMAGES, trunk.image_size, trunk.image_size, 3), np.uint8)
    trunk.run(images[:1], with_activations=False)
    rounds = []
    for _ in range(_TIMED_ROUNDS):
        start = time.perf_counter()
        trunk.run(images, with_activations=False)
        rounds.append(time.perf_counter() - start)
    return 1000 * min(rounds) / _TIMED_IMAGES
