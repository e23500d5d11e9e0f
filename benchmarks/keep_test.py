"""How often a fine-tuned network that is no better is kept, and what keeping costs and brings on test.

    python -m benchmarks.keep_test [--folders DIR ...] [--seeds 3] [--shots 0] [--work FOLDER] [--quick]

Two rules: the best of ten epochs on val, tested on the same val (`best`), and the last epoch, which nothing chose
(`last`, what `fine_tune` does). Both by the exact McNemar test at `fine_tune.significance` of params.yaml. What ships
under `last` is besides not shown to be worse by its log loss; the rates leave that aside, so they are upper bounds.

1. Without photos: val photos and ten epochs, none better than the head alone, whose gains on val have a correlation.
   Beside it the rate of `last` is computed exactly, and that of its test of macro recall simulated.
2. With --folders: trainings on real photos with what they said of val after each epoch. Of each photo, all answers of
   the trained network and that of the head change places with probability 1/2 (`exchanged`), which leaves no gain and
   the correlation of real epochs; photos are drawn with replacement to other sizes of val. Then the labels of val are
   shuffled (`shuffled`).
3. With --folders: test accuracy under both rules, from the same trainings, with 95 % intervals of differences.

Real trainings take minutes each; FOLDER keeps them between calls. `--shots 10 50` trains with so many photos of each
class as well, 0 is all of them. The last line is a JSON object.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.epochs import Recorded, Said, prepare, recorded
from regraft.paired_tests import exact_mcnemar, mean_interval
from regraft.params_file import load_params
from regraft.training.class_weights import objective_of
from regraft.training.keep_test import Answers, keep_test
from tests.support.machine import describe_machine
from tests.support.pipeline import ROOT

_SIZES = (50, 150, 350, 1000)  # of val
_EPOCHS = 10
_ACCURACY = 0.9
_DIFFER = 0.07  # share of val photos on which network and head differ in being right
_CORRELATIONS = (0.5, 0.8, 0.95)
_AT_ONCE = 200  # draws in memory


def rates(gains: np.ndarray, losses: np.ndarray, significance: float) -> dict[str, np.ndarray]:
    """Return for each rule in which draws the network is kept, bool, shape (draws,).

    Args:
        gains: of each photo, 1 if only the network is right, -1 if only the head, shape (draws, epochs, n).
        losses: mean log loss less that of the head, shape (draws, epochs): decides between epochs of equal accuracy.
        significance: largest p.
    """
    only_before, only_after = ((gains == sign).sum(axis=2) for sign in (-1, 1))
    p = exact_mcnemar(only_before, only_after)
    # A difference of log losses is far below the million that a photo counts.
    order = 1e6 * (only_after - only_before) - losses
    best = order.argmax(axis=1)
    chosen = np.take_along_axis(p, best[:, None], axis=1)[:, 0]
    return {"best": (order.max(axis=1) > 0) & (chosen <= significance), "last": p[:, -1] <= significance}


def simulated(size: int, correlation: float, draws: int, significance: float) -> dict[str, float]:
    """Return the rates of networks that are no better, from answers that are Gaussian variables above a threshold.

    A photo's part that all share is as large as makes `_DIFFER` of the answers differ; how alike the epochs are besides
    is set so that gains have about this correlation, whose real value is returned too.
    """
    from scipy.stats import norm

    random = np.random.default_rng(size)
    threshold = norm.ppf(1 - _ACCURACY)
    own = _own_share(threshold)
    # Each gain has the head's own part, so gains of epochs that have nothing else in common are correlated by 1/2.
    common = np.sqrt(max(0.0, 2 * correlation - 1))
    kept: dict[str, list[np.ndarray]] = {"best": [], "last": []}
    correlations = []
    for _ in range(0, draws, _AT_ONCE):
        shape = (_AT_ONCE, _EPOCHS, size)
        photo, head, network = (random.standard_normal((_AT_ONCE, 1, size)) for _ in range(3))
        epochs = common * network + np.sqrt(1 - common**2) * random.standard_normal(shape)
        is_right, was_right = (np.sqrt(1 - own) * photo + np.sqrt(own) * part > threshold for part in (epochs, head))
        gains = is_right.astype(np.int8) - was_right
        correlations.append(np.corrcoef(gains[:, 0].ravel(), gains[:, -1].ravel())[0, 1])
        for rule, used in rates(gains, random.standard_normal(shape[:2]), significance).items():
            kept[rule].append(used)
    return {rule: _share(used) for rule, used in kept.items()} | {"correlation": round(float(np.mean(correlations)), 2)}


def _own_share(threshold: float) -> float:
    """Return the variance that two answers do not share if they differ in `_DIFFER` of the photos."""
    from scipy.optimize import brentq
    from scipy.stats import multivariate_normal, norm

    def excess(own: float) -> float:
        both = multivariate_normal.cdf([threshold] * 2, cov=[[1, 1 - own], [1 - own, 1]])
        return 2 * (float(norm.cdf(threshold)) - float(both)) - _DIFFER

    return float(brentq(excess, 1e-6, 0.999))


def exact_rate(size: int, differ: float, significance: float) -> float:
    """Return how often the last epoch is kept if it is no better and differs from the head in a share of photos."""
    from scipy.stats import binom

    count = np.arange(size + 1)
    after = np.arange(size + 1)[:, None]
    passes = exact_mcnemar(np.maximum(count - after, 0), after) <= significance
    of_count = np.where(passes & (after <= count), binom.pmf(after, count, 0.5), 0).sum(axis=0)
    return round(float(binom.pmf(count, size, differ) @ of_count), 3)


def rate_of_macro_recall(size: int, draws: int, significance: float) -> float:
    """Return how often the last epoch is kept by the test of macro recall if it is no better, by simulation.

    The largest of ten classes has ten times as many photos as the smallest.
    """
    random = np.random.default_rng(size)
    shares = 0.1 ** (np.arange(10) / 9)
    classes = np.repeat(np.arange(10), np.maximum(1, np.round(size * shares / shares.sum())).astype(int))
    p = []
    for _ in range(draws):
        differs, is_after = random.random(len(classes)) < _DIFFER, random.random(len(classes)) < 0.5
        before, after = (
            Answers(np.where(differs & right, classes, -1), np.zeros(len(classes))) for right in (~is_after, is_after)
        )
        p.append(keep_test(classes, before, after, objective_of("balanced")).p)
    return round(float(np.mean(np.array(p) <= significance)), 3)


def exchanged(runs: list[Said], size: int, draws: int, significance: float) -> dict[str, float]:
    """Return the rates where network and head change places at random; the runs are of the same epochs."""
    random = np.random.default_rng(size)
    gains = np.concatenate([said.is_right()[1:].astype(np.int8) - said.is_right()[0] for said in runs], axis=1)
    losses = np.concatenate([said.losses()[1:] - said.losses()[0] for said in runs], axis=1)
    kept: dict[str, list[np.ndarray]] = {"best": [], "last": []}
    for _ in range(0, draws, _AT_ONCE):
        drawn = random.integers(gains.shape[1], size=(_AT_ONCE, size))
        signs = random.choice(np.array([-1, 1], np.int8), size=(_AT_ONCE, 1, size))
        part = (of_photos[:, drawn].transpose(1, 0, 2) * signs for of_photos in (gains, losses))
        found = rates(next(part), next(part).mean(axis=2), significance)
        for rule, used in found.items():
            kept[rule].append(used)
    return {rule: _share(used) for rule, used in kept.items()}


def shuffled(runs: list[Said], draws: int, significance: float) -> dict[str, float]:
    """Return the rates where the labels of val are shuffled."""
    random = np.random.default_rng(0)
    kept: dict[str, list[np.ndarray]] = {"best": [], "last": []}
    for said in runs:
        for _ in range(draws // len(runs)):
            other = Said(random.permutation(said.class_indices), said.probabilities)
            is_right, losses = other.is_right(), other.losses().mean(axis=1)
            gains = is_right[None, 1:].astype(np.int8) - is_right[0]
            for rule, used in rates(gains, losses[None, 1:] - losses[0], significance).items():
                kept[rule].append(used)
    return {rule: _share(used) for rule, used in kept.items()}


def _share(used: list[np.ndarray]) -> float:
    return round(float(np.concatenate(used).mean()), 3)


def shipped(runs: list[Recorded], significance: float) -> dict[str, Any]:
    """Return what ships under each rule and what it comes to on test, run by run, and the mean differences."""
    rows, is_right = [], {"head": [], "best": [], "last": []}
    for run in runs:
        val, test = run["val"], run["test"]
        gains = val.is_right()[None, 1:].astype(np.int8) - val.is_right()[0]
        losses = val.losses().mean(axis=1)
        kept = rates(gains, losses[None, 1:] - losses[0], significance)
        # What is shown to be worse by its log loss is not kept, however many photos it gains.
        kept["last"] &= mean_interval(val.losses()[-1] - val.losses()[0]).low <= 0
        accuracies = [each.accuracy for each in val.scores()]
        best = max(range(len(losses)), key=lambda epoch: (accuracies[epoch], -losses[epoch]))
        epochs = {"head": 0, "best": best if kept["best"][0] else 0, "last": _EPOCHS if kept["last"][0] else 0}
        rows.append({rule: round(float(test.is_right()[epoch].mean()), 4) for rule, epoch in epochs.items()})
        rows[-1] |= {f"{rule}_epoch": epoch for rule, epoch in epochs.items() if rule != "head"}
        rows[-1] |= {"if_always_kept": round(float(test.is_right()[-1].mean()), 4)}
        for rule, epoch in epochs.items():
            is_right[rule].append(test.is_right()[epoch].astype(float))
    means = {rule: np.mean(right, axis=0) for rule, right in is_right.items()}  # over the runs, of each photo
    differences = {
        f"{one} - {other}": str(mean_interval(means[one] - means[other]))
        for one, other in (("last", "best"), ("last", "head"), ("best", "head"))
    }
    return {"runs": rows, "differences": differences}


def measure(arguments: argparse.Namespace, work: Path, significance: float) -> Iterator[tuple[str, Any]]:
    """Yield each finding with its name."""
    draws = arguments.draws
    for size in _SIZES:
        exact = {f"{differ:.0%} differ": exact_rate(size, differ, significance) for differ in (0.05, 0.07, 0.15)}
        yield f"val {size}: exact rate of last", exact
        yield f"val {size}: last by macro recall", rate_of_macro_recall(size, draws // 4, significance)
        for correlation in _CORRELATIONS:
            yield f"val {size}: simulated", simulated(size, correlation, draws, significance)
    for raw in arguments.folders:
        project = work / raw.resolve().name
        prepare(project, raw)
        for shots in arguments.shots:
            runs = [recorded(project, seed=seed, shots=shots or None) for seed in range(arguments.seeds)]
            name = f"{project.name}, {shots or 'all'} photos of each class"
            val = [run["val"] for run in runs]
            for size in (*_SIZES, len(val[0].class_indices)):
                yield f"{name}: exchanged, val {size}", exchanged(val, size, draws, significance)
            yield f"{name}: shuffled labels", shuffled(val, draws, significance)
            yield f"{name}: test accuracy", shipped(runs, significance)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.keep_test", description="Rates of the keep test.")
    parser.add_argument("--folders", type=Path, nargs="*", default=[], help="folders of labelled photos")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shots", type=int, nargs="+", default=[0], help="training photos of each class; 0: all")
    parser.add_argument("--work", type=Path, help="keeps trainings between calls")
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="600 draws, one seed, ten training photos of each class")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.draws, arguments.seeds, arguments.shots = 600, 1, [10]
    significance = load_params(ROOT / "params.yaml").fine_tune.significance
    print(describe_machine())
    print(f"rates of networks that are kept at fine_tune.significance {significance:g}")
    with tempfile.TemporaryDirectory(prefix="regraft-keep-test-") as temporary:
        found = {}
        for name, finding in measure(arguments, arguments.work or Path(temporary), significance):
            is_simulated = isinstance(finding, dict) and "correlation" in finding
            key = f"{name}, correlation {finding['correlation']:g}" if is_simulated else name
            print(f"{key}: {json.dumps(finding)}", flush=True)
            found[key] = finding
    print(json.dumps({"significance": significance, **found}))


if __name__ == "__main__":
    main()
