"""Choosing a backbone: the names that params.yaml can have, the cost of one here, and a ranking on these photos."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.backbones.catalogue import CATALOGUE, Backbone, catalogue
from regraft.backbones.cut_points import MODES, cut_points, multiply_adds
from regraft.backbones.trunk import Trunk, load_trunk
from regraft.core.statistics import Interval, tango_interval, wilson

_TIMED_IMAGES, _TIMED_ROUNDS = 8, 3  # of each that is compared
_FIGURES = ("val_accuracy", "val_low", "val_high", "behind", "behind_low", "behind_high")


def list_backbones() -> str:
    """Return every name with the facts that are known before anything is loaded."""
    lines = []
    for name, recipe in catalogue().items():
        source = recipe.weights_source if name in CATALOGUE else f"ImageNet weights {recipe.weights_source}"
        lines.append(f"{name:22} {recipe.image_size} pixels, preprocessing {recipe.preprocessing}")
        lines.append(f"{'':22} {recipe.title}, {source}, {recipe.weights_licence}")
    return "\n".join([*lines, "Also the path of your own model.keras, with backbone.weights: own."])


def describe(backbone: Backbone) -> str:
    """Return the facts of one backbone, its cost here, and its cut points.

    Raises:
        InvalidWeights: they cannot be loaded.
    """
    import keras

    model = backbone.build()
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    epsilons = ", ".join(sorted({f"{layer.epsilon:g}" for layer in norms}))
    weights = model.count_params()
    with tempfile.TemporaryDirectory(prefix="regraft-backbone-") as folder:
        trunk = load_trunk(backbone, Path(folder))
    speed = 1000 / milliseconds_per_image(trunk)
    rows = {
        "name": f"{backbone.name} ({backbone.recipe.title})",
        "image size": f"{backbone.image_size} pixels (pretrained at {backbone.recipe.image_size})",
        "preprocessing": f"{backbone.preprocessing}: {MODES[backbone.preprocessing]}",
        "parameters": f"{weights:,} ({4 * weights / 1e6:.1f} MB)",
        "multiply-adds": f"{multiply_adds(model) / 1e6:,.0f} million per image",
        "features": f"{model.output_shape[1]:,} per image",
        "BatchNorm": f"{len(norms)} layers, epsilon {epsilons}" if norms else "none",
        "weights": f"{backbone.weights or 'random'} ({backbone.weights_digest})",
        "pretrained weights": f"{backbone.recipe.weights_source}; {backbone.recipe.weights_licence}",
        "speed here": f"{speed:,.1f} images/s, float32, {trunk.engine}, one thread",
    }
    lines = [f"{what:20}{value}" for what, value in rows.items()]
    lines += ["", f"{'cut point':40}{'bytes stored per view':>22}{'work above it':>15}"]
    for point in cut_points(model):
        mark = "  <- auto" if point.name == backbone.cut else ""
        lines.append(f"{point.name:40}{point.activation_bytes:>22,}{point.share_above:>15.1%}{mark}")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Compared:
    """The figures of a backbone, or why it could not be tried."""

    name: str
    right: np.ndarray | None = None  # whether a head on its features names each val photo rightly, bool, shape (n,)
    val_log_loss: float | None = None
    nearest_neighbours: float | None = None  # accuracy on val without training
    milliseconds: float | None = None  # per image, frozen, measured on this machine
    megabytes: float | None = None  # of its ONNX graph
    feature_dim: int | None = None
    computed: int = 0  # forward passes that were not in the store
    problem: str = ""


def rank(compared: Sequence[Compared]) -> pd.DataFrame:
    """Return a table, the most accurate backbone on val first; those that could not be tried come last.

    Columns: val_accuracy, val_low and val_high, its 95 % interval; behind, behind_low and behind_high, how much less
    accurate it is than the first one on the same photos, with the paired interval; and what `Compared` has.
    """
    ordered = sorted(compared, key=_place)
    table = pd.DataFrame([_row(each, ordered[0]) for each in ordered])
    return table.astype({"feature_dim": "Int64"})


def _place(each: Compared) -> tuple[float, float]:
    return (np.inf, 0.0) if each.right is None else (-float(each.right.mean()), each.val_log_loss or 0.0)


def _row(each: Compared, best: Compared) -> dict[str, Any]:
    rest = {field.name: getattr(each, field.name) for field in fields(each) if field.name not in ("name", "right")}
    if each.right is None or best.right is None:
        return {"name": each.name, **dict.fromkeys(_FIGURES), **rest}
    accuracy = wilson(int(each.right.sum()), len(each.right))
    only_best, only_each = int((best.right & ~each.right).sum()), int((each.right & ~best.right).sum())
    behind = tango_interval(only_each, only_best, len(each.right))
    return {"name": each.name, **dict(zip(_FIGURES, (*astuple(accuracy), *astuple(behind)), strict=True)), **rest}


def recommendation(ranking: pd.DataFrame, val_images: int) -> str:
    """Say which backbone to take: the fastest of those that cannot be told from the most accurate one."""
    tried = ranking[ranking.problem == ""]
    problems = "".join(
        f"\n{each.name} could not be tried: {each.problem}"
        for each in ranking[ranking.problem != ""].itertuples(index=False)
    )
    return (_choice(tried, val_images) if len(tried) else "No backbone could be tried.") + problems


def _choice(tried: pd.DataFrame, val_images: int) -> str:
    best: Any = tried.iloc[0]
    accuracy = Interval(best.val_accuracy, best.val_low, best.val_high)
    words = f"The most accurate is {best['name']}: {accuracy} of {val_images} val photos."
    alike = tried.iloc[1:]
    alike = alike[alike.behind_low <= 0]
    if not len(alike):
        return f"{words} Each of the others is less accurate by more than chance." if len(tried) > 1 else words
    told = ", ".join(
        f"{each.name} ({100 * each.behind:.1f} points behind, {100 * each.behind_low:.1f} to "
        f"{100 * each.behind_high:.1f})"
        for each in alike.itertuples(index=False)
    )
    words += f" Not told from it by these photos: {told}."
    fastest: Any = alike.loc[alike.milliseconds.idxmin()]
    if fastest.milliseconds < best.milliseconds:
        words += f" Of these, {fastest['name']} takes {fastest.milliseconds / best.milliseconds:.0%} of its time."
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
