"""How good the models are, and what they cost: the classic recipe in Keras against Regraft's heads and fine-tuning.

    python -m benchmarks.accuracy DIR [--seeds 3] [--shots 5 10 50] [--methods recipe linear ...] [--quick]

Every method sees the same split of the same photos, made once by content, so no copy of a photo is in two splits; val
chooses epochs and models, test is only measured. For each seed: accuracy on test, and wall seconds of the processes
that lead from the photos to the trained model. The spread is that of the seeds; the interval (95 %, Wilson) is that of
the mean on other photos of the kind, and all methods share the test photos. `--shots N` keeps N training photos of each
class.

    recipe       frozen backbone, 1,024 ReLU units, RMSprop, ten epochs over the photos, Keras (benchmarks.recipe)
    recipe-tuned the same, then the layers above the cut for `fine_tune.epochs` epochs over the photos
    linear, mlp  Regraft's heads on cached features
    tuned        the default: linear head, then the layers above the cut, from cached activations
    views        as tuned, with four augmented views of each training photo in the cache beside it
    all          the whole network, from photos
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from regraft.files import read_json
from regraft.intervals import wilson
from tests.support.machine import describe_machine
from tests.support.photos import usable_photos
from tests.support.pipeline import run_module, run_stage, stages_folder

_SETTINGS = {
    "linear": ["train_head.kind=linear", "fine_tune.mode=off"],
    "mlp": ["train_head.kind=mlp", "fine_tune.mode=off"],
    "tuned": ["fine_tune.mode=always", "fine_tune.layers=top"],
    "views": ["fine_tune.mode=always", "fine_tune.layers=top", "cache_features.views=4"],
    "all": ["fine_tune.mode=always", "fine_tune.layers=all"],
}
_METHODS = ["recipe", "recipe-tuned", *_SETTINGS]
_TRAINING = ["cache_features", "train_head", "fine_tune"]


def measure(
    photos: Path, *, seeds: int, shots: list[int], methods: list[str], settings: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield a row per number of shots and method."""
    rows = usable_photos(photos)
    for count in shots or [None]:
        train = rows[rows.split == "train"]
        part = (
            rows
            if count is None
            else pd.concat([train.groupby("class_index").head(count), rows[rows.split != "train"]])
        )
        with tempfile.TemporaryDirectory(prefix="regraft-accuracy-") as temporary:
            raw = Path(temporary, "raw")
            _copy(part, raw)
            for method in methods:
                folder = Path(temporary, method)
                common = [*settings, "validate_data.enough_images_per_class.min=1"]
                runs = [_run(method, folder / str(seed), raw, [*common, f"seed={seed}"]) for seed in range(seeds)]
                yield _row(method, count, runs, int((rows.split == "test").sum()))


def _copy(rows: pd.DataFrame, raw: Path) -> None:
    """Copy photos as {train,val,test}/<class>/; a folder without photos tells the recipe of its class."""
    for split in ("train", "val", "test"):
        for class_index in set(rows.class_index):
            (raw / split / f"{class_index:03}").mkdir(parents=True)
    for row in rows.itertuples():
        target = raw / str(row.split) / f"{row.class_index:03}" / f"{row.digest}{Path(str(row.path)).suffix.lower()}"
        shutil.copyfile(str(row.path), target)


def _run(method: str, folder: Path, raw: Path, settings: list[str]) -> tuple[float, float]:
    """Return the accuracy on test and the seconds of one training."""
    project = stages_folder(folder, raw, [*settings, *_SETTINGS.get(method, [])])
    log = folder / "log"
    if method in _SETTINGS:
        took = {
            stage: run_stage(stage, project, log=log).seconds for stage in ("validate_data", "preprocess", *_TRAINING)
        }
        for stage in ("check_features", "export_onnx", "evaluate"):  # evaluate puts every report on its page
            run_stage(stage, project, log=log)
        accuracy = read_json(project / "reports" / "metrics.json")["test"]["accuracy"]
        shutil.rmtree(project / "build")
        return accuracy, sum(took[stage] for stage in _TRAINING)
    options = ["--tune"] if method == "recipe-tuned" else []
    ended = run_module("benchmarks.recipe", str(project), *options, folder=project, log=log)
    result = json.loads(log.read_text().splitlines()[-1])
    return result["test_accuracy"], ended.seconds


def _row(method: str, shots: int | None, runs: list[tuple[float, float]], images: int) -> dict[str, Any]:
    accuracies, seconds = zip(*runs, strict=True)
    mean = statistics.mean(accuracies)
    interval = wilson(round(mean * images), images)
    return {
        "method": method,
        "shots": shots,
        "test_images": images,
        "test_accuracy": round(mean, 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "spread": round(statistics.stdev(accuracies), 4) if len(runs) > 1 else 0.0,
        "test_accuracies": [round(value, 4) for value in accuracies],
        "seconds": round(statistics.median(seconds), 1),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description="Accuracy and seconds against the classic recipe."
    )
    parser.add_argument("photos", type=Path, help="a folder of labelled photos in any of the three layouts")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shots", type=int, nargs="+", default=[], help="training photos per class; default: all")
    parser.add_argument("--methods", nargs="+", choices=_METHODS, default=_METHODS)
    parser.add_argument("--quick", action="store_true", help="one seed, ten photos per class, without the slow methods")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="section.key=value")
    arguments = parser.parse_args()
    if not arguments.photos.is_dir():
        sys.exit(f"there is no folder {arguments.photos}")
    if arguments.quick:
        arguments.seeds, arguments.shots, arguments.methods = 1, [10], ["linear", "mlp", "tuned"]
    print(describe_machine())
    rows = []
    print(f"{'shots':>6} {'method':12} {'test accuracy':>14} {'interval':>16} {'spread':>7} {'seconds':>8}")
    for row in measure(
        arguments.photos,
        seeds=arguments.seeds,
        shots=arguments.shots,
        methods=arguments.methods,
        settings=arguments.settings,
    ):
        shots = "all" if row["shots"] is None else row["shots"]
        print(
            f"{shots:>6} {row['method']:12} {row['test_accuracy']:14.4f} {row['low']:.4f} to {row['high']:.4f} "
            f"{row['spread']:7.4f} {row['seconds']:8.1f}",
            flush=True,
        )
        rows.append(row)
    print(json.dumps({"seeds": arguments.seeds, "rows": rows}))


if __name__ == "__main__":
    main()
