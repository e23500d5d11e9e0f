"""Ten nights of 1 % new photos each, with fine-tuning: from the base, and from nothing; seconds and accuracy of both.

    python -m benchmarks.speed.nights DIR [--nights 10] [--full-every 1] [--quick] [--set fine_tune.renew_after=0.3 ...]

Two projects get the same photos every night and run `regraft retrain` with the settings of params.yaml.
`warm` starts from its base; `full` is the same with fine_tune.renew_after=0, so it trains a new
base on all photos. With `--full-every 5` it does so in every fifth night and the last one, on all photos there are:
those nights are compared. Seconds are wall time of the process, with everything in it. Accuracy is that on the test
photos, the same every night; the difference is paired photo by photo, each with its mean over the nights, because a
photo that is hard is so every night. At the end the recipe (`benchmarks.accuracy.recipe --tune`) runs once, on the
photos of the last night: ten epochs of a new classifier and ten of the layers above the cut, from images.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.support.photos import hold_back, readable_by_keras, usable_photos
from benchmarks.support.projects import Project, describe_machine, run_module, temporary_project
from regraft.core.csv_files import read_csv
from regraft.core.files import read_json
from regraft.core.statistics import mean_interval

_SHARE = 0.01  # of the training photos join before each night
_QUICK = ["backbone.image_size=96", "cache_features.views=1", "fine_tune.epochs=3"]
_QUICK += ["expectations.enough_images_per_class.min_value=1"]


@dataclass(frozen=True, slots=True)
class Night:
    """What a run took and came to."""

    seconds: float
    right: np.ndarray  # whether it names each test photo rightly, bool, ordered by path
    is_renewed: bool
    words: str  # of the base


def measure(
    photos: Path, settings: list[str], *, images: int | None, nights: int, full_every: int, epochs: int
) -> dict[str, Any]:
    """Let photos join both projects night by night, then follow the recipe.

    Args:
        photos: a folder of labelled photos in any of the three layouts.
        settings: changes of params.yaml, for both.
        images: use about so many photos; None means all.
        nights: how many.
        full_every: the full project runs in every so many nights, and in the last.
        epochs: of the recipe's first part.
    """
    rows = usable_photos(photos).head(images) if images else usable_photos(photos)
    rows = readable_by_keras(rows)  # photos in other formats are left out on both sides
    joining = hold_back(rows[rows.split == "train"], rounds=nights, share=_SHARE)
    with ExitStack() as projects:
        warm = projects.enter_context(temporary_project(settings))
        full = projects.enter_context(temporary_project([*settings, "fine_tune.renew_after=0.0"]))
        first = rows.drop(index=pd.concat(joining).index)
        runs: list[tuple[Night, Night | None]] = [(_night(warm, first), None)]
        waiting = [first]
        for number, part in enumerate(joining, 1):
            one, other = _night(warm, part), None
            waiting.append(part)
            if number % full_every == 0 or number == nights:
                other, waiting = _night(full, pd.concat(waiting)), []
            runs.append((one, other))
            _tell(number, one, other)
        recipe = _follow_recipe(full, epochs)
    return _summary(rows, joining, runs) | recipe


def _night(project: Project, joining: pd.DataFrame) -> Night:
    for row in joining.itertuples():
        target = project.raw / str(row.split) / f"{row.class_index:03}" / f"{row.digest}{row.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(row.path), target)
    seconds = project.regraft("retrain").seconds
    reports = project.root / "reports"
    said = read_csv(reports / "predictions.csv", {"path": str, "actual": str, "predicted": str, "confidence": float})
    said = said.sort_values("path")
    base = read_json(reports / "base.json")
    right = (said.actual == said.predicted).to_numpy()
    return Night(seconds, right, base["is_renewed"], base["words"])


def _summary(rows: pd.DataFrame, joining: list[pd.DataFrame], runs: list[tuple[Night, Night | None]]) -> dict[str, Any]:
    """Return medians and means over the nights; the interval is that of the mean over test photos.

    Args:
        rows: all photos.
        joining: those of each night.
        runs: of the first run and of each night, warm and, where it ran, full.
    """
    warm = [one for one, _ in runs[1:]]
    both = [(number, one, other) for number, (one, other) in enumerate(runs) if other]
    full = [other for _, _, other in both]
    difference = mean_interval(np.mean([one.right.astype(float) - other.right for _, one, other in both], axis=0))
    return {
        "images": len(rows),
        "new_images": len(joining[0]),
        "test_images": len(warm[0].right),
        "nights": len(warm),
        "first_seconds": round(runs[0][0].seconds, 1),
        "warm_seconds": _median(night.seconds for night in warm),
        "full_seconds": _median(night.seconds for night in full[1:] or full),  # the first one computes all photos
        "compared_nights": [number for number, _, _ in both],
        "warm_accuracy": round(float(np.mean([one.right.mean() for _, one, _ in both])), 4),
        "full_accuracy": round(float(np.mean([night.right.mean() for night in full])), 4),
        "accuracy_difference": {name: round(value, 4) for name, value in asdict(difference).items()},
        "renewed_in_nights": [number for number, night in enumerate(warm, 1) if night.is_renewed],
        "warm_nights": [round(night.seconds, 1) for night in warm],
        "full_nights": [round(night.seconds, 1) for night in full],
        "warm_accuracies": [round(float(night.right.mean()), 4) for night in warm],
        "full_accuracies": [round(float(night.right.mean()), 4) for night in full],
    }


def _median(seconds: Iterable[float]) -> float:
    return round(float(np.median(list(seconds))), 1)


def _follow_recipe(project: Project, epochs: int) -> dict[str, Any]:
    """Return the seconds of the recipe with its second part, and its accuracy on test."""
    for folder in {path.name for path in project.raw.glob("*/*")}:  # folders without photos tell the recipe the classes
        for split in ("train", "val", "test"):
            (project.raw / split / folder).mkdir(parents=True, exist_ok=True)
    log = project.root.parent / "recipe.log"
    arguments = (str(project.root), "--epochs", str(epochs), "--tune")
    ended = run_module("benchmarks.accuracy.recipe", *arguments, folder=project.root, log=log)
    accuracy = json.loads(log.read_text().splitlines()[-1])["test_accuracy"]
    return {"recipe_seconds": round(ended.seconds, 1), "recipe_accuracy": round(accuracy, 4)}


def _tell(number: int, warm: Night, full: Night | None) -> None:
    words = f"night {number:2}: warm {warm.seconds:7.1f} s, accuracy {warm.right.mean():.4f}; "
    words += f"full {full.seconds:7.1f} s, accuracy {full.right.mean():.4f}; " if full else ""
    print(f"{words}{warm.words}", flush=True)


def _print(result: dict[str, Any]) -> None:
    gap = result["accuracy_difference"]
    print(f"{result['images']:,} photos, {result['new_images']} new a night; first run {result['first_seconds']} s")
    for name in ("warm", "full", "recipe"):
        print(f"{name:7} {result[f'{name}_seconds']:8.1f} s   accuracy {result[f'{name}_accuracy']:.4f}")
    share = result["warm_seconds"] / result["full_seconds"]
    times = result["recipe_seconds"] / result["warm_seconds"]
    print(f"a night from the base takes {share:.2f} of a full one, and the recipe {times:.1f} times as long")
    interval = f"{100 * gap['low']:+.2f} to {100 * gap['high']:+.2f}, 95 % interval"
    print(f"its accuracy is {100 * gap['value']:+.2f} points from that of full ones ({interval})")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Nights from a base, and in full.")
    parser.add_argument("photos", type=Path, help="a folder of labelled photos in any of the three layouts")
    parser.add_argument("--quick", action="store_true", help="300 photos at 96 pixels, two nights, few epochs")
    parser.add_argument("--nights", type=int, default=10)
    parser.add_argument("--full-every", type=int, default=1, metavar="NIGHTS", help="a full run takes long")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of params.yaml")
    arguments = parser.parse_args()
    if not arguments.photos.is_dir():
        sys.exit(f"there is no folder {arguments.photos}")
    print(describe_machine(), flush=True)
    if arguments.quick:
        result = measure(arguments.photos, [*_QUICK, *arguments.set], images=300, nights=2, full_every=2, epochs=2)
    else:
        result = measure(
            arguments.photos,
            arguments.set,
            images=None,
            nights=arguments.nights,
            full_every=arguments.full_every,
            epochs=10,
        )
    _print(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
