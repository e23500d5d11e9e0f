"""Novelty: how well the output tells photos of other things from known ones, and what the outputs cost.

    python -m benchmarks.checks.novelty KNOWN OTHER [--set fine_tune.mode=off ...]

All stages run on KNOWN; its test photos are known, up to as many photos of OTHER are not. AUROC is the chance that a
photo of OTHER is called more novel than one of KNOWN, with a 95 % interval by bootstrap; `unsure` is the baseline of
Hendrycks and Gimpel (2017), 1 - the largest probability. `caught` is the share of OTHER above the file's threshold,
`alarms` that of KNOWN, and `expected` what the file says of that. The milliseconds are medians on one thread, one photo
of 640 x 480, with and without the two outputs in turn. The last line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.support.projects import describe_machine, run_stages
from regraft.core.params_file import load_params
from regraft.core.statistics import Interval, wilson
from regraft.export.classifier import OnnxClassifier, answers_of
from regraft.photos.dataset import read_dataset
from regraft.photos.images import Threads, load_rgb
from regraft.serving.shipped_model import run_session

_RESAMPLES, _TIMED = 1000, 100
_SUFFIXES = {".jpg", ".jpeg", ".png"}


def auroc(known: np.ndarray, other: np.ndarray) -> Interval:
    """Return the chance that one of `other` is larger than one of `known`, shapes (n,) and (m,), with its interval."""
    random = np.random.default_rng(0)

    def of(first: np.ndarray, second: np.ndarray) -> float:
        return float(roc_auc_score(np.repeat([0, 1], [len(first), len(second)]), np.concatenate([first, second])))

    drawn = [of(random.choice(known, len(known)), random.choice(other, len(other))) for _ in range(_RESAMPLES)]
    return Interval(of(known, other), *map(float, np.quantile(drawn, [0.025, 0.975])))


def milliseconds(model: OnnxClassifier) -> dict[str, float]:
    """Return the median time of a photo with one output and with all, taken in turn."""
    photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    kinds = {"probabilities": ["probabilities"], "all": ["probabilities", "features", "novelty"]}
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(_TIMED):
        for name, outputs in kinds.items():
            start = time.perf_counter()
            run_session(model.session, photo, outputs)
            taken[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(times)) for name, times in taken.items()}


def measure(known: Path, other: Path, settings: list[str]) -> dict[str, Any]:
    """Return all figures."""
    with tempfile.TemporaryDirectory(prefix="regraft-novelty-") as folder:
        project = run_stages(Path(folder, "project"), known, settings, until="export_onnx")
        params = load_params(project / "params.yaml")
        model = OnnxClassifier(project / params.paths.onnx)
        test = read_dataset(project / params.paths.dataset, project / params.paths.raw).of("test")
        inside = answers_of(model, test, Threads(0), stored=None)
    paths = sorted(path for path in other.rglob("*") if path.suffix.lower() in _SUFFIXES)
    chosen = np.random.default_rng(0).permutation(len(paths))[: len(test)]
    answers = list(Threads(0).map(lambda number: model.ask(load_rgb(paths[number])), chosen.tolist()))
    novelty = np.array([answer.novelty for answer in answers])
    unsure = np.array([1 - answer.probabilities.max() for answer in answers])
    assert inside.novelty is not None
    assert model.novel_above is not None
    alarms, caught = (int((each > model.novel_above).sum()) for each in (inside.novelty, novelty))
    return {
        "known": len(test),
        "other": len(answers),
        "auroc_novelty": vars_of(auroc(inside.novelty, novelty)),
        "auroc_unsure": vars_of(auroc(1 - inside.probabilities.max(axis=1), unsure)),
        "caught": vars_of(wilson(caught, len(answers))),
        "alarms": vars_of(wilson(alarms, len(test))),
        "expected": model.novel_share,
        "milliseconds": milliseconds(model),
    }


def vars_of(interval: Interval) -> list[float]:
    """Return an interval as three numbers."""
    return [round(each, 4) for each in (interval.value, interval.low, interval.high)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("known", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    print(describe_machine())
    found = measure(arguments.known, arguments.other, arguments.settings)
    for name, value in found.items():
        print(f"{name:14} {value}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
