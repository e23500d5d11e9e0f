"""The gate's error rates: how often it promotes, refuses or leaves open, night by night and sixty nights long.

    python -m benchmarks.gate [--draws 5000] [--sequences 200] [--quick] [--picture FILE.svg]
                              [--folders DIR ...] [--retrainings 20] [--work FOLDER]

The rule is the real one with the settings of params.yaml; models and photos are simulated (`benchmarks.gate.draws` says
how, `benchmarks.gate.nights` what happens night after night). Beside it, on the same draws: the rule that it replaced
(accuracy may fall by 0.01), and `>=`. Cells are percent. With --folders the same is asked of heads that are trained on
real photos (`benchmarks.gate.real`); FOLDER keeps their features between calls.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

from benchmarks.gate.draws import RULES, Scenario, World, rates
from benchmarks.gate.nights import NIGHTS, WORLDS, alarms, nights
from benchmarks.gate.picture import draw_picture
from benchmarks.support.projects import ROOT, describe_machine
from regraft.core.config import Promote
from regraft.core.params_file import load_params
from regraft.production.gate import rule

_SIZES = (200, 346, 1000, 5000)
_SMALL = (30, 50, 54, 75, 100, 134, 200, 300)
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
    "sharper_2": Scenario(sharpness=2.0),
}
_OF_SMALL = ("equal", "worse_0.02", "worse_0.04", "better_0.02")
# Night after night: which rules, in which worlds, with how many photos.
_MODES = ("auto", "approves_promoted", "approves_all", "before", "not_less")
_COURSES = [
    (_MODES, ("equal", "0.25 points worse every night"), (200, 346, 1000)),
    (("auto",), [name for name in WORLDS if "temperature" not in name], _SMALL),
    (("new_photos",), ("0.25 points worse every night", "4 points worse from the first night on"), (30, 54, 100, 200)),
]
_ALIKE = World(discordance=0.01)  # models that hardly differ, where least of a difference in log loss is shown
_NEW_PHOTOS, _LOSSES = (1, 3, 10, 30), (0.0, 0.02, 0.04)


def single_nights(settings: Promote, draws: int) -> dict[str, Any]:
    """Return the rates of first nights by rule, scenario and number of photos."""
    found: dict[str, Any] = {each: {} for each in RULES}
    for name, scenario in SCENARIOS.items():
        for photos in sorted({*_SIZES, *(_SMALL if name in _OF_SMALL else ())}):
            for each, of_rule in rates(_WORLD, scenario, photos, settings, draws=draws).items():
                found[each].setdefault(name, {})[str(photos)] = of_rule
    return found


def log_loss_nights(settings: Promote, sequences: int) -> list[dict[str, Any]]:
    """Return the nights of equal models with other temperatures: with a least harm to log loss, and without."""
    rows = []
    for world in (_WORLD, _ALIKE):
        for photos in (346, 1000, 5000):
            for least in ("with", "without"):
                keep = 1.0 if least == "with" else 0.0
                nats, share = keep * rule._LEAST_NATS, keep * rule._LEAST_SHARE
                with mock.patch.multiple(rule, _LEAST_NATS=nats, _LEAST_SHARE=share):
                    of = nights(world, "equal, other temperature", photos, settings, ("auto",), sequences=sequences)
                rows.append(
                    {"differ on": world.discordance, "photos": photos, "least harm": least, **_of_nights(of["auto"])}
                )
    return rows


def simulate(settings: Promote, *, draws: int, sequences: int) -> dict[str, Any]:
    """Return all that is simulated, and print it as tables."""
    found: dict[str, Any] = single_nights(settings, draws)
    print(f"\nOne night, {draws:,} draws, {_WORLD.classes} classes, accuracy {_WORLD.accuracy}.")
    answers = ("promoted", "refused", "undecided")
    for heading, shown, names, sizes in (
        (" / ".join(answers), answers, SCENARIOS, _SIZES),
        ("goes in", ("goes_in",), SCENARIOS, _SIZES),
        ("goes in / asks for a person / refused", ("goes_in", "asks", "refused"), _OF_SMALL, _SMALL),
    ):
        print(f"\n{heading}\n\n{_table(found['now'], shown, names, sizes)}", flush=True)
    for each in ("before", "not_less"):
        print(f"\npromoted by the rule {each}\n\n{_table(found[each], ('promoted',), SCENARIOS, _SIZES)}", flush=True)
    found["alarms"] = [
        {
            "new photos a night": each,
            **{
                f"{100 * loss:g} worse": _percent(alarms(_WORLD, loss, each, sequences=10 * sequences))
                for loss in _LOSSES
            },
        }
        for each in _NEW_PHOTOS
    ]
    print(f"\nalarms within {NIGHTS} nights\n\n{_markdown(found['alarms'])}", flush=True)
    found["sequences"] = []
    print(f"\n{sequences} sequences of {NIGHTS} nights")
    for rules, names, sizes in _COURSES:
        rows = []
        for name in names:
            for photos in sizes:
                of_rules = nights(_WORLD, name, photos, settings, rules, sequences=sequences)
                rows += [
                    {"world": name, "photos": photos, "rule": each, **_of_nights(of)} for each, of in of_rules.items()
                ]
        print(f"\n{_markdown(rows)}", flush=True)
        found["sequences"] += rows
    found["log_loss"] = log_loss_nights(settings, max(1, sequences // 4))
    print(f"\nequal models with other temperatures\n\n{_markdown(found['log_loss'])}", flush=True)
    return found


def _of_nights(of: dict[str, float]) -> dict[str, str]:
    """What `nights` says of a rule, as cells."""
    return {
        "red a month: mean, median, 95 %": f"{of['red']:.1f}, {of['red_median']:.0f}, {of['red_95']:.0f}",
        "new": _percent(of["new"]),
        "optimism": f"{100 * of['optimism']:+.1f}",
        "accuracy, 5 %": f"{100 * of['accuracy']:.1f}, {100 * of['low']:.1f}",
        "first new: median, 95 %": f"{of['first']:.0f}, {of['first_95']:.0f}",
        "alarm": _percent(of["alarmed"]),
    }


def _table(found: dict[str, Any], shown: tuple[str, ...], names: Any, sizes: tuple[int, ...]) -> str:
    """One rule's rates in Markdown, percent."""
    return _markdown(
        [
            {
                "scenario": name,
                "true change": f"{100 * SCENARIOS[name].change_on(_WORLD):+.1f}",
                **{f"{n:,}": " / ".join(_percent(found[name][str(n)][answer]) for answer in shown) for n in sizes},
            }
            for name in names
        ]
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if 0.1 <= share <= 0.9 else f"{100 * share:.1f}"


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(cell) for cell in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def try_folders(folders: list[Path], work: Path, retrainings: int) -> list[dict[str, Any]]:
    """Return what the gate says of heads trained on real photos, and print it."""
    from benchmarks.gate.real import measure  # it imports all that training needs

    summaries = []
    for folder in folders:
        rows, summary = measure(folder, work, retrainings)
        print(f"\n{folder.name}\n\n{pd.DataFrame(rows).to_string(index=False)}\n\n{json.dumps(summary, indent=1)}")
        summaries.append(summary)
    return summaries


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="The gate's error rates.")
    parser.add_argument("--draws", type=int, default=5_000, help="of each scenario and number of photos")
    parser.add_argument("--sequences", type=int, default=200, help=f"of {NIGHTS} nights each")
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
