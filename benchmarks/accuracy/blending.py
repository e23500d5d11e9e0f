"""How often val chooses another network than the usual one, wrongly and rightly, and what that costs and brings.

    python -m benchmarks.accuracy.blending DIR ... [--seeds 3] [--shots 10 50 0] [--work FOLDER] [--quick]

`fine_tune` uses a network between the head alone and the fine-tuned one: the usual one, unless val shows another to be
better (regraft/training/fine_tune.py). Networks are trained on real photos, with what each said of val and test photos,
neither of which it was trained on. From all of these, val photos are drawn with replacement, as many as a folder may
have; what they choose is judged by the photos that were not drawn.

    equal     of each photo the answers of the usual network and of another one change places with probability 1/2, so
              that none is better: how often another one is used
    harmful   the fine-tuned end says what it says of another photo on one of five photos: how often the head alone, or
              a network no nearer to that end than half way, is used; always where that is the usual one
    real      how often which is used; accuracy and log loss of what is used, less those of the usual network, of the
              head alone, and of the lowest log loss on val as the rule

DIR holds labelled photos. Trainings take minutes each; FOLDER keeps them. `--shots 0` trains on all photos of a class.
The last line is a JSON object.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.blends import Said, prepare, recorded, train_images
from benchmarks.support.projects import describe_machine
from regraft.training.fine_tune import ALPHAS, choose, usual_of
from regraft.training.metrics import objective_of

_SIZES = (50, 150, 350, 1000)  # of val
_OBJECTIVE = objective_of("none")
_SPOILT = 0.2  # share of photos


@dataclass(frozen=True, slots=True)
class Draws:
    """How val photos are drawn."""

    size: int  # of val
    count: int
    usual: int  # position of the network that is usual after so much training
    random: np.random.Generator

    def chosen(self, probabilities: np.ndarray, class_indices: np.ndarray) -> int:
        """Return the position of the network that val chooses; shapes (len(ALPHAS), n, classes) and (n,)."""
        said = dict(zip(ALPHAS, probabilities, strict=True))
        return ALPHAS.index(choose(said, class_indices, _OBJECTIVE, usual=ALPHAS[self.usual]).alpha)


def equal(said: Said, draws: Draws) -> float:
    """Return how often another network than the usual one is used if none is better."""
    others, random = [at for at in range(len(ALPHAS)) if at != draws.usual], draws.random
    used = 0
    for _ in range(draws.count):
        drawn = random.integers(len(said.class_indices), size=draws.size)
        answers = said.probabilities[:, drawn].copy()
        usual = answers[draws.usual].copy()
        other = random.choice(others)
        places = random.random(draws.size) < 0.5
        answers[draws.usual][places], answers[other][places] = answers[other][places], usual[places]
        pair = {ALPHAS[draws.usual]: answers[draws.usual], ALPHAS[other]: answers[other]}
        used += choose(pair, said.class_indices[drawn], _OBJECTIVE, usual=ALPHAS[draws.usual]).alpha == ALPHAS[other]
    return round(used / draws.count, 3)


def harmful(said: Said, draws: Draws) -> float:
    """Return how often a network at most half way is used if the fine-tuned end is spoilt; a blend is so in part."""
    random, used = draws.random, 0
    for _ in range(draws.count):
        drawn = random.integers(len(said.class_indices), size=draws.size)
        answers = said.probabilities[:, drawn].copy()
        spoilt = random.random(draws.size) < _SPOILT
        wrong = said.probabilities[-1][random.integers(len(said.class_indices), size=draws.size)]
        for at, alpha in enumerate(ALPHAS):
            answers[at][spoilt] = (1 - alpha) * answers[at][spoilt] + alpha * wrong[spoilt]
        used += ALPHAS[draws.chosen(answers, said.class_indices[drawn])] <= 0.5
    return round(used / draws.count, 3)


def real(said: Said, draws: Draws) -> dict[str, Any]:
    """Return what is used of real networks, and what that comes to on the photos that did not choose."""
    right, losses = said.is_right(), said.losses()
    used: Counter[float] = Counter()
    points: dict[str, list[float]] = {name: [] for name in ("usual", "head alone", "lowest log loss")}
    nats: dict[str, list[float]] = {name: [] for name in points}
    for _ in range(draws.count):
        drawn = draws.random.integers(right.shape[1], size=draws.size)
        rest = np.setdiff1d(np.arange(right.shape[1]), drawn)
        at = draws.chosen(said.probabilities[:, drawn], said.class_indices[drawn])
        used[ALPHAS[at]] += 1
        lowest = int(losses[:, drawn].mean(axis=1).argmin())
        for name, other in (("usual", draws.usual), ("head alone", 0), ("lowest log loss", lowest)):
            points[name].append(100 * float((right[at, rest].astype(int) - right[other, rest]).mean()))
            nats[name].append(float((losses[at, rest] - losses[other, rest]).mean()))
    return {
        "used": {f"{alpha:g}": round(used[alpha] / draws.count, 3) for alpha in ALPHAS},
        "points against": {name: round(float(np.mean(each)), 2) for name, each in points.items()},
        "worst hundredth": {name: round(float(np.quantile(each, 0.01)), 2) for name, each in points.items()},
        "log loss against": {name: round(float(np.mean(each)), 3) for name, each in nats.items()},
    }


def measure(arguments: argparse.Namespace, work: Path) -> Iterator[tuple[str, Any]]:
    """Yield each finding with its name."""
    for raw in arguments.folders:
        project = work / raw.resolve().name
        prepare(project, raw)
        for shots in arguments.shots:
            name = f"{project.name}, {shots or 'all'} photos of each class"
            usual = ALPHAS.index(usual_of(train_images(project, shots or None)))
            runs = [recorded(project, seed=seed, shots=shots or None) for seed in range(arguments.seeds)]
            for size in _SIZES:
                draws, found = Draws(size, arguments.draws // len(runs), usual, np.random.default_rng(size)), []
                for run in runs:
                    pool = _together(list(run.values()))
                    if len(pool.class_indices) >= size:  # else most of it would be drawn
                        found.append([part(pool, draws) for part in (equal, harmful, real)])
                if found:
                    yield f"{name}, val {size}", {"alpha": ALPHAS[usual], **_mean(found)}


def _together(parts: list[Said]) -> Said:
    return Said(
        np.concatenate([said.class_indices for said in parts]),
        np.concatenate([said.probabilities for said in parts], axis=1),
    )


def _mean(found: list[list[Any]]) -> dict[str, Any]:
    equal_rates, harmful_rates, reals = zip(*found, strict=True)
    means = {
        key: {name: round(float(np.mean([each[key][name] for each in reals])), 3) for name in reals[0][key]}
        for key in reals[0]
    }
    rates = {"equal": equal_rates, "harmful": harmful_rates}
    return {name: round(float(np.mean(each)), 3) for name, each in rates.items()} | means


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Error rates of blending.")
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folders of labelled photos")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shots", type=int, nargs="+", default=[0], help="training photos of each class; 0: all")
    parser.add_argument("--work", type=Path, help="keeps trainings between calls")
    parser.add_argument("--draws", type=int, default=3000)
    parser.add_argument("--quick", action="store_true", help="300 draws, one seed, ten training photos of each class")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        if not folder.is_dir():
            sys.exit(f"there is no folder {folder}")
    if arguments.quick:
        arguments.draws, arguments.seeds, arguments.shots = 300, 1, [10]
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="regraft-blending-") as temporary:
        found = {}
        for name, finding in measure(arguments, arguments.work or Path(temporary)):
            print(f"{name}: {json.dumps(finding)}", flush=True)
            found[name] = finding
    print(json.dumps(found))


if __name__ == "__main__":
    main()
