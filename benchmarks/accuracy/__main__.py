"""How good the models are, and what they cost: Regraft's budgets against recipes, on photos that none of them saw.

    python -m benchmarks.accuracy DIR ... [--methods recipe balanced ...] [--folds 5] [--photos N] [--shots 5 10 50]
                                          [--official [--seeds 3]] [--before CHECKOUT]
                                          [--work FOLDER] [--set NAME=VALUE ...] [--quick]

The photos of each folder are parted into folds, near-duplicates together. In each fold every method trains on the same
photos of the others, with a part of them as val, and is asked about the fold. So every photo is predicted once by a
model that never saw it or its group, and methods are compared on all photos, pair by pair: accuracy with its 95 %
interval (Wilson), the difference to the first method with Tango's paired interval, log loss with the paired interval of
its difference, expected calibration error. Seconds are those of the processes that lead from photos to the trained
model, a first training without any cache, median of the folds; all methods run in turn on one machine with all cores.

`--official` takes the splits that a folder gives in place of folds, `--seeds` times; intervals are of its test photos,
each with its mean over the seeds. `--shots N` trains on N photos of
each class. `--work` keeps what was said, so that a call that was interrupted goes on. `--quick` is for daily use: two
folds of 600 photos.

    recipe        frozen backbone, 1,024 ReLU units, RMSprop, ten epochs over the photos, Keras (`recipe.py`)
    recipe-tuned  then the layers above the cut for ten epochs over the photos
    linear        Regraft's head alone
    quick, balanced, thorough      Regraft with that budget; balanced is the default
    before        another checkout of Regraft with its defaults
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.accuracy.folds import pooled_folds, read_photos, write_photos
from benchmarks.accuracy.methods import Recipe, Regraft, Said
from benchmarks.support.projects import describe_machine
from regraft.core.files import fingerprint, replacing
from regraft.core.statistics import mean_interval, tango_interval, wilson
from regraft.export.evaluation import expected_calibration_error
from regraft.training.metrics import log_losses

_BUDGETS = ("quick", "balanced", "thorough")
_DEFAULT = ["recipe", "recipe-tuned", "linear", *_BUDGETS]
_BINS = 15

Method = Regraft | Recipe


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a method said of all photos, in an order that all methods share; of several seeds the mean of each photo."""

    right: np.ndarray  # share of seeds that were, float64, (n,)
    losses: np.ndarray  # log losses, float64, (n,)
    ece: float

    @classmethod
    def of(cls, said: list[Said], classes: pd.Series, *, seeds: int) -> "_Answers":
        """Pool folds, in each of which are other photos, or `seeds` runs on the same ones."""
        true = np.concatenate([classes.loc[each.digests].to_numpy() for each in said])
        probabilities = np.concatenate([each.probabilities for each in said])
        right = (probabilities.argmax(axis=1) == true).reshape(seeds, -1).mean(axis=0)
        losses = log_losses(true, probabilities).reshape(seeds, -1).mean(axis=0)
        return cls(right, losses, expected_calibration_error(true, probabilities, bins=_BINS))

    def against(self, first: "_Answers") -> dict[str, Any]:
        """Return figures with their 95 % intervals, and those of the difference to another method."""
        difference = self.right - first.right
        if set(np.unique(difference)) <= {-1.0, 0.0, 1.0}:
            interval = tango_interval(int((difference < 0).sum()), int((difference > 0).sum()), len(difference))
        else:
            interval = mean_interval(difference)
        return {
            "photos": len(self.right),
            "accuracy": _rounded(wilson(round(self.right.sum()), len(self.right))),
            "difference": _rounded(interval),
            "log_loss": round(float(self.losses.mean()), 4),
            "log_loss_difference": _rounded(mean_interval(self.losses - first.losses)),
            "ece": round(self.ece, 4),
        }


def methods_of(arguments: argparse.Namespace) -> dict[str, Method]:
    """Return every method that can be run, by name."""
    settings = tuple(arguments.settings)
    methods: dict[str, Method] = {
        "recipe": Recipe("benchmarks.accuracy.recipe"),
        "recipe-tuned": Recipe("benchmarks.accuracy.recipe", ("--tune",)),
        "linear": Regraft((*settings, "fine_tune.mode=off")),
        **{budget: Regraft((*settings, f"fine_tune.budget={budget}")) for budget in _BUDGETS},
    }
    if arguments.before:
        methods["before"] = Regraft((), arguments.before.resolve())
    return methods


def measure(folder: Path, chosen: dict[str, Method], shots: int | None, arguments: argparse.Namespace) -> Iterator[Any]:
    """Yield a row per method for one folder of photos."""
    photos = read_photos(folder, limit=arguments.photos)
    folds = [photos] * arguments.seeds if arguments.official else pooled_folds(photos, arguments.folds, shots=shots)
    what = [str(folder.resolve()), arguments.official, len(folds), shots, photos.digest.tolist()]
    pooled: dict[str, list[Said]] = {method: [] for method in chosen}
    for number, fold in enumerate(folds):
        for method, train in chosen.items():
            name = f"{folder.name}-{number}-{method}-{fingerprint([what, repr(train)])[:12]}.npz"
            pooled[method].append(_once(arguments.work / name, train, fold, number if arguments.official else None))
    first: _Answers | None = None
    classes = photos.set_index("digest").class_index
    for method, said in pooled.items():
        answers = _Answers.of(said, classes, seeds=len(folds) if arguments.official else 1)
        first = first or answers
        seconds = round(statistics.median(each.seconds for each in said), 1)
        yield {
            "folder": folder.name,
            "shots": shots,
            "method": method,
            **answers.against(first),
            "seconds": seconds,
        }


def _once(path: Path, train: Method, fold: pd.DataFrame, seed: int | None) -> Said:
    """Train on a fold, unless that was done before."""
    if not path.is_file():
        with tempfile.TemporaryDirectory(prefix="regraft-accuracy-") as temporary:
            raw = Path(temporary, "raw")
            write_photos(fold, raw)
            said = train(Path(temporary, "project"), raw, seed=seed)
        order = np.argsort(said.digests)
        digests, probabilities = said.digests[order], said.probabilities[order]
        with replacing(path) as draft, draft.open("wb") as file:
            np.savez(file, digests=digests, probabilities=probabilities, seconds=np.array(said.seconds))
    with np.load(path) as arrays:
        return Said(arrays["digests"], arrays["probabilities"], float(arrays["seconds"]))


def _rounded(interval: Any) -> list[float]:
    return [round(float(value), 4) for value in (interval.value, interval.low, interval.high)]


def words(row: dict[str, Any]) -> str:
    """Return a line of the table."""
    (accuracy, low, high), loss = row["accuracy"], row["log_loss_difference"]
    points = [100 * value for value in row["difference"]]
    return (
        f"{row['folder']:14} {row['shots'] or 'all':>5} {row['method']:14} {row['photos']:6} "
        f"{accuracy:.3f} ({low:.3f} to {high:.3f}) {points[0]:+5.1f} ({points[1]:+.1f} to {points[2]:+.1f}) "
        f"{row['log_loss']:.3f} {loss[0]:+.3f} ({loss[1]:+.3f} to {loss[2]:+.3f}) "
        f"{row['ece']:.3f} {row['seconds']:7.1f}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Accuracy and seconds of Regraft and of recipes.")
    parser.add_argument("photos_of", type=Path, nargs="+", metavar="DIR", help="labelled photos, in any of the layouts")
    parser.add_argument("--methods", nargs="+", default=None, help=f"default: {', '.join(_DEFAULT)}")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--photos", type=int, default=None, help="at most so many of each folder; default: all")
    parser.add_argument("--shots", type=int, nargs="+", default=[], help="training photos per class; default: all")
    parser.add_argument("--official", action="store_true", help="the folder's own splits in place of folds")
    parser.add_argument("--seeds", type=int, default=3, help="of --official")
    parser.add_argument("--work", type=Path, help="keeps what was said of the photos, for a later call")
    parser.add_argument("--before", type=Path, help="another checkout of this project, with its environment's packages")
    parser.add_argument("--quick", action="store_true", help="two folds of 600 photos: linear, quick and balanced")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="section.key=value")
    arguments = parser.parse_args()
    for folder in arguments.photos_of:
        if not folder.is_dir():
            sys.exit(f"there is no folder {folder}")
    if arguments.quick:
        arguments.folds, arguments.photos = 2, arguments.photos or 600
        arguments.methods = arguments.methods or ["linear", "quick", "balanced"]
    return arguments


def main() -> None:
    """The command line."""
    arguments = _arguments()
    known = methods_of(arguments)
    names = arguments.methods or _DEFAULT
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"--methods: expected some of {', '.join(known)}. Received: {', '.join(unknown)}.")
    print(describe_machine())
    print(
        "folder, shots, method, photos, accuracy, difference in points, log loss, difference, ECE, seconds", flush=True
    )
    rows = []
    with tempfile.TemporaryDirectory(prefix="regraft-accuracy-") as temporary:
        arguments.work = arguments.work or Path(temporary)
        arguments.work.mkdir(parents=True, exist_ok=True)
        for folder in arguments.photos_of:
            for shots in arguments.shots or [None]:
                for row in measure(folder, {name: known[name] for name in names}, shots, arguments):
                    print(words(row), flush=True)
                    rows.append(row)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
