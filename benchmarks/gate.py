"""The gate's error rates: how often it promotes, refuses or leaves open, night by night and sixty nights long.

    python -m benchmarks.gate [--draws 10000] [--sequences 500] [--quick] [--picture FILE.svg]
                              [--folders DIR ...] [--retrainings 20] [--work FOLDER]

The rule is the real one with the settings of params.yaml; models and photos are simulated (`benchmarks.gate_draws` says
how). Beside it, on the same draws: the rule that it replaced (accuracy may fall by 0.01), `>=`, and a literal form that
refuses where it lets a person decide, be it for a large loss that may be chance or for a model in production that the
gate chose. Cells are percent. With --folders the same is asked of heads that are trained on real photos
(`benchmarks.gate_real`); FOLDER keeps their features between calls.

Left out, because they say nothing new: 5 and 50 classes, and other shares of photos on which two models differ, in all
but the scenarios where they matter.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.gate_draws import RULES, Scenario, World, rates
from benchmarks.gate_nights import NIGHTS, RULES_OF_NIGHTS, after_a_gain, nights
from benchmarks.gate_picture import draw_picture
from regraft.config import Promote
from regraft.params_file import load_params
from tests.support.machine import describe_machine
from tests.support.pipeline import ROOT

_SIZES = (200, 346, 1000, 5000)
_WORLD = World()
SCENARIOS = {
    "equal": Scenario(),
    **{f"worse_{loss}": Scenario(change=-loss) for loss in (0.01, 0.02, 0.04)},
    **{f"better_{gain}": Scenario(change=gain) for gain in (0.01, 0.02, 0.04)},
    "class_lost_0.2": Scenario(class_change=-0.2),
    "class_lost_0.6": Scenario(class_change=-0.6),
    "class_new": Scenario(new_class=True),
    "class_new_takes_0.05": Scenario(new_class=True, taken=0.05),
    "relabelled_0.01": Scenario(relabelled=0.01),
    "relabelled_0.05": Scenario(relabelled=0.05),
    "bursts_of_4": Scenario(group=4),
    "bursts_of_4_all": Scenario(group=4, one_per_group=False),
    "flatter_0.8": Scenario(sharpness=0.8),
    "sharper_1.25": Scenario(sharpness=1.25),
}
_OF_CLASSES = ("equal", "worse_0.02", "class_lost_0.2", "class_lost_0.6")
_OF_DISCORDANCE = ("equal", "worse_0.02", "better_0.02")
_OF_CHOSEN = ("equal", "worse_0.01", "worse_0.02", "worse_0.04", "better_0.02", "class_lost_0.2", "class_lost_0.6")
_GAINS = ((0.02, 0.0), (0.02, 0.02), (0.02, 0.04), (0.04, 0.02), (0.04, 0.04))  # since the anchor, and the loss tonight
_DRIFTS = {"equal": 0.0, "falling_0.0025": -0.0025, "improving_0.001": 0.001}  # of what is trained, a night
_HEADINGS = {
    "now": "promoted / refused / undecided",
    "before": "promoted by the rule before",
    "not_less": "promoted by `>=`",
    "literal": "refused by the literal rule",
}

Rates = dict[str, dict[str, dict[str, float]]]  # by scenario and number of photos


def single_nights(
    world: World, names: Iterable[str], settings: Promote, draws: int, *, was_chosen: bool = False
) -> dict[str, Rates]:
    """Return the rates of single nights by rule, scenario and number of photos.

    The model in production is one that a person approved, or, with `was_chosen`, one that the gate let in itself, and
    nothing to compare it with; then red takes `promote.alpha_harm_chosen`. (How lucky it is, sequences show.)
    """
    found: dict[str, Rates] = {rule: {} for rule in RULES}
    for name in names:
        for photos in _SIZES:
            of_rules = rates(world, SCENARIOS[name], photos, settings, draws=draws, was_chosen=was_chosen)
            for rule, of_rule in of_rules.items():
                found[rule].setdefault(name, {})[str(photos)] = of_rule
    return found


def many_nights(world: World, settings: Promote, sequences: int) -> dict[str, Rates]:
    """Return what sequences of nights come to, by rule, drift and number of photos."""
    found: dict[str, Rates] = {rule: {} for rule in RULES_OF_NIGHTS}
    for name, change in _DRIFTS.items():
        for photos in _SIZES:
            of_rules = nights(world, change, photos, settings, sequences=sequences)
            for rule, of_rule in of_rules.items():
                found[rule].setdefault(name, {})[str(photos)] = of_rule
    return found


def simulate(settings: Promote, *, draws: int, sequences: int) -> dict[str, Any]:
    """Return all that is simulated, and print it as tables."""
    found: dict[str, Any] = {}
    found |= single_nights(_WORLD, SCENARIOS, settings, draws)
    print(f"\nOne night, {draws:,} draws, {_WORLD.classes} classes, accuracy {_WORLD.accuracy}.")
    for rule in RULES:
        print(f"\n{_HEADINGS[rule]}\n\n{_table(found[rule], rule, _WORLD)}", flush=True)
    found["chosen"] = single_nights(_WORLD, _OF_CHOSEN, settings, draws, was_chosen=True)["now"]
    print(
        f"\nproduction was chosen by the gate; {_HEADINGS['now']}\n\n{_table(found['chosen'], 'now', _WORLD)}",
        flush=True,
    )
    for key, values in {"classes": (5, 50), "discordance": (0.04, 0.15)}.items():
        names = _OF_CLASSES if key == "classes" else _OF_DISCORDANCE
        found[key] = {}
        for value in values:
            world = World(**{key: value})
            found[key][str(value)] = single_nights(world, names, settings, draws)["now"]
            print(f"\n{key}: {value}; {_HEADINGS['now']}\n\n{_table(found[key][str(value)], 'now', world)}", flush=True)
    found["after_a_gain"] = {
        f"gain_{gain}_loss_{loss}": {
            str(photos): after_a_gain(_WORLD, (gain, loss), photos, settings, draws=draws) for photos in _SIZES
        }
        for gain, loss in _GAINS
    }
    print(f"\nproduction is better than the anchor: new in production\n\n{_table_of_gains(found['after_a_gain'])}")
    of_nights = many_nights(_WORLD, settings, sequences)
    found["sequences"] = of_nights["now"]
    found["sequences_of_other_rules"] = {rule: of_nights[rule] for rule in RULES_OF_NIGHTS if rule != "now"}
    print(f"\n{sequences} sequences of {NIGHTS} nights\n\n{_table_of_nights(of_nights)}", flush=True)
    return found


def _table(found: Rates, rule: str, world: World) -> str:
    """One rule's rates in Markdown, percent; of the older rules, which know two answers only, one."""
    shown = {"now": ("promoted", "refused", "undecided"), "literal": ("refused",)}.get(rule, ("promoted",))
    rows = [
        {
            "scenario": name,
            "true change": f"{100 * SCENARIOS[name].change_on(world):+.1f}",
            **{
                f"{int(photos):,}": " / ".join(f"{100 * of[answer]:.1f}" for answer in shown)
                for photos, of in by_photos.items()
            },
        }
        for name, by_photos in found.items()
    ]
    return _markdown(rows)


def _table_of_gains(found: Rates) -> str:
    return _markdown(
        [
            {
                "points above the anchor": f"{100 * gain:g}",
                "points lost tonight": f"{100 * loss:g}",
                **{
                    f"{int(photos):,}": f"{100 * of['new_in_production']:.1f}"
                    for photos, of in found[f"gain_{gain}_loss_{loss}"].items()
                },
            }
            for gain, loss in _GAINS
        ]
    )


def _table_of_nights(found: dict[str, Rates]) -> str:
    rows = [
        {
            "drift": drift,
            "photos": f"{int(photos):,}",
            "rule": rule,
            "promoted": f"{100 * of['promoted_share']:.1f}",
            "refused": f"{100 * of['refused_share']:.1f}",
            "refused a month": f"{of['refused_a_month']:.1f}",
            "new in production": f"{100 * of['new_in_production_share']:.1f}",
            "optimism": f"{100 * of['optimism']:+.2f} ± {100 * of['optimism_error']:.2f}",
            "true accuracy at the end": f"{100 * of['accuracy']:.2f}",
        }
        for drift in _DRIFTS
        for photos in map(str, _SIZES)
        for rule in RULES_OF_NIGHTS
        for of in [found[rule][drift][photos]]
    ]
    return _markdown(rows)


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(cell) for cell in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def try_folders(folders: list[Path], work: Path, retrainings: int) -> list[dict[str, Any]]:
    """Return what the gate says of heads trained on real photos, and print it."""
    from benchmarks.gate_real import measure  # it imports all that training needs

    summaries = []
    for folder in folders:
        rows, summary = measure(folder, work, retrainings)
        print(f"\n{folder.name}\n\n{pd.DataFrame(rows).to_string(index=False)}\n\n{json.dumps(summary, indent=1)}")
        summaries.append(summary)
    return summaries


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description="The gate's error rates.")
    parser.add_argument("--draws", type=int, default=10_000, help="of each scenario and number of photos")
    parser.add_argument("--sequences", type=int, default=500, help=f"of {NIGHTS} nights each")
    parser.add_argument("--quick", action="store_true", help="100 draws, two sequences, two retrainings")
    parser.add_argument("--picture", type=Path, help="write the rates as a picture there")
    parser.add_argument("--folders", type=Path, nargs="+", default=[], metavar="DIR", help="labelled photos")
    parser.add_argument("--retrainings", type=int, default=20, help="of each kind and folder")
    parser.add_argument("--work", type=Path, help="keeps features between calls; a temporary folder without it")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.draws, arguments.sequences, arguments.retrainings = 100, 2, 2
    settings = load_params(ROOT / "params.yaml").promote
    print(describe_machine())
    found = simulate(settings, draws=arguments.draws, sequences=arguments.sequences)
    if arguments.picture:
        draw_picture(arguments.picture, found)
    with tempfile.TemporaryDirectory(prefix="regraft-gate-") as temporary:
        work = arguments.work or Path(temporary)
        found["photos"] = try_folders(arguments.folders, work, arguments.retrainings)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
