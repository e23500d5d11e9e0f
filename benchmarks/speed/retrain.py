"""What retraining costs when 1 % new photos joined: the real flow against the classic recipe, on the same photos.

    python -m benchmarks.speed.retrain DIR [--quick]

Regraft: wall time of `regraft retrain`, without fine-tuning. Everything is in
it: Python's start, DVC, the ONNX file and its test, the gate. Median of five runs, each after further photos joined.
Baseline: `benchmarks.accuracy.recipe`, ten epochs over all these photos, wall time of its process, its test included.
It takes minutes, so it runs once.
"""

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.support.photos import hold_back, readable_by_keras, usable_photos
from benchmarks.support.projects import HEAD_ONLY, Project, describe_machine, run_module, temporary_project
from regraft.core.files import read_json

_SHARE = 0.01  # of the training photos join before each run
_EPOCHS = 10  # of the recipe


def measure(photos: Path, *, images: int | None, rounds: int, epochs: int) -> dict[str, Any]:
    """Retrain as photos join, then follow the recipe on all of them.

    Args:
        photos: a folder of labelled photos in any of the three layouts.
        images: use about so many of them; None means all.
        rounds: how often photos join.
        epochs: of the recipe that are run; each of the others is taken to be as long as the last one of these.
    """
    usable = usable_photos(photos)
    rows = usable if images is None else usable.head(images)
    rows = readable_by_keras(rows)  # photos in other formats are left out on both sides
    held_back = hold_back(rows[rows.split == "train"], rounds=rounds, share=_SHARE)
    with temporary_project(HEAD_ONLY) as project:
        _add(project, rows.drop(index=pd.concat(held_back).index))
        first = project.regraft("retrain")
        runs, computed = [], []
        for joining in held_back:
            _add(project, joining)
            runs.append(project.regraft("retrain"))
            computed.append(read_json(project.root / "reports" / "features.json")["computed"])
        seconds, accuracy = _follow_recipe(project, epochs)
        regraft_seconds = statistics.median(run.seconds for run in runs)
        return {
            "images": len(rows),
            "new_images": len(held_back[0]),
            "left_out": len(usable.head(images or len(usable))) - len(rows),
            "regraft_seconds": round(regraft_seconds, 2),
            "recipe_seconds": round(seconds, 1),
            "speedup": round(seconds / regraft_seconds, 1),
            "regraft_test_accuracy": read_json(project.root / "reports" / "metrics.json")["test"]["accuracy"],
            "recipe_test_accuracy": round(accuracy, 4),
            "test_images": int((rows.split == "test").sum()),
            "regraft_runs": [round(run.seconds, 2) for run in runs],
            "forward_passes": computed,
            "regraft_peak_memory_mb": round(max(run.peak_memory_mb for run in runs)),
            "first_seconds": round(first.seconds, 1),
            "recipe_epochs_run": epochs,
        }


def _add(project: Project, rows: pd.DataFrame) -> None:
    """Copy photos into the project as {train,val,test}/<class>/; folders without photos tell the recipe the classes."""
    for class_index in set(rows.class_index):
        for split in ("train", "val", "test"):
            (project.raw / split / f"{class_index:03}").mkdir(parents=True, exist_ok=True)
    for row in rows.itertuples():
        target = project.raw / str(row.split) / f"{row.class_index:03}" / f"{row.digest}{row.suffix}"
        shutil.copyfile(str(row.path), target)


def _follow_recipe(project: Project, epochs: int) -> tuple[float, float]:
    """Return the recipe's seconds for all epochs, and its accuracy on test after those that were run."""
    log = project.root.parent / "recipe.log"
    ended = run_module(
        "benchmarks.accuracy.recipe", str(project.root), "--epochs", str(epochs), folder=project.root, log=log
    )
    result = json.loads(log.read_text().splitlines()[-1])
    # The first epoch is longer than the others: TensorFlow traces the graph.
    return ended.seconds + (_EPOCHS - epochs) * result["last_epoch_seconds"], result["test_accuracy"]


def _print_table(result: dict[str, Any]) -> None:
    print(f"{result['images']} photos, {result['new_images']} new; first run {result['first_seconds']} s")
    if result["left_out"]:
        print(f"{result['left_out']} photos were left out on both sides: the recipe cannot read their format")
    print(f"Regraft {result['regraft_seconds']} s, the recipe {result['recipe_seconds']} s: {result['speedup']}x")
    shown = result["recipe_epochs_run"]
    if shown < _EPOCHS:
        print(f"the recipe ran only {shown} of {_EPOCHS} epochs: its accuracy is that after these, and")
        print("its seconds are extrapolated, every further epoch like the last one")
    print(
        f"test accuracy on {result['test_images']} photos: Regraft {result['regraft_test_accuracy']:.4f}, "
        f"the recipe {result['recipe_test_accuracy']:.4f}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.retrain",
        description="Retraining when 1 % new photos joined, against the recipe.",
    )
    parser.add_argument("photos", type=Path, help="a folder of labelled photos in any of the three layouts")
    parser.add_argument(
        "--quick", action="store_true", help="300 photos, two additions, two epochs of the recipe instead of ten"
    )
    arguments = parser.parse_args()
    if not arguments.photos.is_dir():
        sys.exit(f"there is no folder {arguments.photos}")
    images, rounds, epochs = (300, 2, 2) if arguments.quick else (None, 5, _EPOCHS)
    result = measure(arguments.photos, images=images, rounds=rounds, epochs=epochs)
    print(describe_machine())
    _print_table(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
