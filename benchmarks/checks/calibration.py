"""Calibration: how often the temperature is chosen wrongly, and what that costs.

    python -m benchmarks.checks.calibration [--draws 400] [--quick]

It draws val splits of n photos from populations whose true probabilities are known, scaled by a
temperature of their own. `changed` is the share of draws in which another temperature than 1 is chosen: for a
temperature of 1 that is the error rate. `worse` is the share in which the choice has a higher log loss on the
population than 1, `lost` the mean of what those lose, and `won` what the choice wins on average, beside what the right
temperature would win. `always` is the same where the best temperature on val is taken, once it has ten mistakes.
The last line is one JSON object.
"""

import argparse
import json
from typing import Any

import numpy as np

from benchmarks.support.projects import describe_machine
from regraft.export.calibration import choose_temperature
from regraft.training.metrics import objective_of

_SIZES = (40, 100, 350, 1000)
_TEMPERATURES = (0.7, 1.0, 1.5)
_POPULATION = 50_000
# By how far apart the logits of the ten classes are.
_ACCURACIES = {"97 % right": 2.0, "92 % right": 1.8, "74 % right": 1.4}


def population(spread: float, random: np.random.Generator, count: int = _POPULATION) -> tuple[np.ndarray, np.ndarray]:
    """Return logits, shape (count, 10), whose probabilities are right, and true classes drawn by them."""
    true = random.integers(0, 10, count)
    logits = random.normal(size=(count, 10)) * spread
    logits[np.arange(count), true] += spread**2 * 2.2
    # Classes are drawn anew from the probabilities, so that these are right by construction.
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    borders = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)
    drawn = (random.random((count, 1)) > borders).sum(axis=1)
    return logits, np.minimum(drawn, 9)


def loss_at(logits: np.ndarray, true: np.ndarray, temperature: float) -> float:
    """Return the mean log loss of logits divided by a temperature."""
    scaled = logits / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(true)), true]))


def measure(spread: float, temperature: float, count: int, draws: int) -> dict[str, float]:
    """Return the rates of one population at one size of val."""
    random = np.random.default_rng([count, round(100 * temperature), round(100 * spread)])
    logits, true = population(spread, random)
    logits, chosen = logits * temperature, {"regraft": [], "always": []}
    for _ in range(draws):
        val = random.choice(len(true), count, replace=False)
        found = choose_temperature(logits[val], true[val], objective_of("none"))
        chosen["regraft"].append(found.temperature)
        chosen["always"].append(found.best)
    grid = np.exp(np.linspace(np.log(0.25), np.log(4), 121))
    losses = np.array([loss_at(logits, true, each) for each in grid])
    plain = loss_at(logits, true, 1.0)
    figures = {"accuracy": float(np.mean(logits.argmax(axis=1) == true)), "won_by_right": plain - float(losses.min())}
    for name, values in chosen.items():
        won = plain - np.interp(np.log(values), np.log(grid), losses)
        won[np.array(values) == 1.0] = 0.0
        worse = won < -1e-6
        figures |= {
            f"{name}_changed": float(np.mean(np.array(values) != 1.0)),
            f"{name}_worse": float(worse.mean()),
            f"{name}_lost": float(-won[worse].mean()) if worse.any() else 0.0,
            f"{name}_won": float(won.mean()),
        }
    return figures


def simulate(draws: int) -> dict[str, Any]:
    """Print a line per population and size, and return all figures."""
    result: dict[str, Any] = {}
    print("population     T     val  changed  worse    lost     won  right  | always: worse    lost     won")
    for name, spread in _ACCURACIES.items():
        for temperature in _TEMPERATURES:
            for count in _SIZES:
                found = measure(spread, temperature, count, draws)
                result.setdefault(name, {}).setdefault(str(temperature), {})[str(count)] = found
                print(
                    f"{name:12} {temperature:4.1f} {count:6}  {found['regraft_changed']:7.1%} "
                    f"{found['regraft_worse']:6.1%} {found['regraft_lost']:7.4f} {found['regraft_won']:7.4f} "
                    f"{found['won_by_right']:6.4f}  |        {found['always_worse']:6.1%} {found['always_lost']:7.4f} "
                    f"{found['always_won']:7.4f}",
                    flush=True,
                )
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="How often the temperature is chosen wrongly, and what that costs.")
    parser.add_argument("--draws", type=int, default=400, help="val splits of each kind")
    parser.add_argument("--quick", action="store_true", help="five draws")
    arguments = parser.parse_args()
    print(describe_machine())
    print(json.dumps(simulate(5 if arguments.quick else arguments.draws)))


if __name__ == "__main__":
    main()
