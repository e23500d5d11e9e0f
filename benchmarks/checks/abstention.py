"""Abstention: how often the promise of a threshold is broken on fresh photos, and what coverage the rule costs.

    python -m benchmarks.checks.abstention [--draws 2000] [--target 0.98] [--quick]

A draw is a val split of n photos from a population whose error rate follows from how confident the model is; the
promise is broken if the true precision at the threshold is below the target. `free` takes the lowest threshold whose
bound of Clopper and Pearson holds, as if it had been the only one; `bonferroni` divides the error rate among 20 fixed
shares of val; `sequence` tries them one after the other, from the strictest on; `regraft` is `find_promise`. `perfect`
knows the population. The last line is one JSON object: n -> population -> rule -> [broken share, mean coverage].
"""

import argparse
import json
from collections.abc import Callable
from math import ceil

import numpy as np
from scipy.special import betainc

from regraft.core.statistics import least_share
from regraft.export.abstention import CONFIDENCE, fewest_photos, find_promise

_SIZES = (200, 341, 1000, 5000)
_STEPS = 20
_GRID = (np.arange(200_000) + 0.5) / 200_000
Errors = Callable[
    [np.ndarray], np.ndarray
]  # from the share of photos that are more confident to the chance of an error
# The first one is like the default model on clothing10.
POPULATIONS: dict[str, Errors] = {
    "93 % right": lambda above: 0.6 * above**8,
    "97 % right": lambda above: 0.3 * above**10,
    "75 % right": lambda above: 0.75 * above**2,
    "1 % of labels wrong": lambda above: 0.01 + 0.5 * above**8,
    "everywhere just too bad": lambda above: np.full_like(above, 0.0201),
    "wrong where it is surest": lambda above: np.where(above < 0.1, 0.1, 0.0) + 0.5 * np.clip(above - 0.5, 0, 1) ** 2,
    "good, bad, good": lambda above: np.select([above < 0.3, above < 0.45], [0.0, 0.064], 0.0201),
}


def shares_answered(right: np.ndarray, target: float) -> dict[str, float]:
    """Return which share of photos each rule answers; the photos are ordered, the surest first."""
    count, right_of = len(right), np.concatenate([[0], np.cumsum(right)])
    shares = sorted({ceil(count * step / _STEPS) for step in range(1, _STEPS + 1)})
    possible = [number for number in shares if number >= fewest_photos(target)]

    def holds(number: int, error_rate: float) -> bool:
        return least_share(int(right_of[number]), number, 1 - error_rate) >= target

    numbers = np.arange(1, count + 1)  # the bound holds where so few errors have at most this chance
    alone = numbers[betainc(right_of[1:], numbers - right_of[1:] + 1, target) <= 1 - CONFIDENCE]
    divided = [number for number in possible if holds(number, (1 - CONFIDENCE) / len(possible))]
    one_by_one = 0
    for number in possible:
        if not holds(number, 1 - CONFIDENCE):
            break
        one_by_one = number
    promise = find_promise(right, 1 - np.arange(count) / count, target=target)
    answered = 0 if promise is None else ceil((1 - promise.abstain_below) * count)
    most = {"free": max(alone, default=0), "bonferroni": max(divided, default=0), "sequence": one_by_one}
    return {rule: number / count for rule, number in {**most, "regraft": answered}.items()}


def measure(error_of: Errors, count: int, target: float, draws: int) -> dict[str, list[float]]:
    """Return the share of draws in which each rule's promise is broken, and the mean share of photos it answers."""
    precision = 1 - np.cumsum(error_of(_GRID)) / np.arange(1, len(_GRID) + 1)
    random, broken, coverage = np.random.default_rng(count), {}, {}
    for _ in range(draws):
        above = np.sort(random.random(count))
        right = random.random(count) >= error_of(above)
        for rule, share in shares_answered(right, target).items():
            # The threshold lies just above the next photo.
            number = round(share * count)
            reached = 1.0 if number == count else float(above[number])
            is_broken = number > 0 and precision[min(int(reached * len(_GRID)), len(_GRID) - 1)] < target - 1e-9
            broken[rule] = broken.get(rule, 0) + is_broken
            coverage[rule] = coverage.get(rule, 0) + (reached if number else 0)
    keeping = np.flatnonzero(precision >= target)
    perfect = [0.0, float(_GRID[keeping[-1]]) if len(keeping) else 0.0]
    return {rule: [broken[rule] / draws, coverage[rule] / draws] for rule in broken} | {"perfect": perfect}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="How often a threshold's promise is broken.")
    parser.add_argument("--draws", type=int, default=2000, help="val splits per population and size")
    parser.add_argument("--target", type=float, default=0.98, help="precision that is promised")
    parser.add_argument("--quick", action="store_true", help="20 draws")
    arguments = parser.parse_args()
    arguments.draws = 20 if arguments.quick else arguments.draws
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    for count in _SIZES:
        print(f"{count} val photos, target {arguments.target:g}: promise broken / photos answered")
        results[str(count)] = {}
        for name, error_of in POPULATIONS.items():
            found = measure(error_of, count, arguments.target, arguments.draws)
            results[str(count)][name] = {rule: [round(value, 4) for value in pair] for rule, pair in found.items()}
            cells = "  ".join(f"{rule} {broken:5.1%} / {coverage:4.0%}" for rule, (broken, coverage) in found.items())
            print(f"  {name:25} {cells}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
