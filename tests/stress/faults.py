"""What the feature store does under kill -9 and under single faults: is a value ever wrong, is a run ever lost?

    python -m tests.stress.faults [DIR] [--kills 200] [--quick]

DIR holds labelled photos; without it, handwritten digits. An undisturbed run in a store of its own is the reference;
whatever is read afterwards is compared with it bit by bit. Exit status 1 if anything is not as it should be.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from regraft.converters.demo_data import write_digits
from tests.stress.kills import Rounds, undisturbed
from tests.stress.single_faults import Outcome, Scene, faults_of_files, store_deleted
from tests.stress.stage_processes import choose_images, project_maker
from tests.stress.surroundings import full_disk, read_only, unreachable, vanished
from tests.support.machine import describe_machine

_IMAGES = 300
# Small images and random weights: the store does not know the difference, and a run takes a second.
_SETTINGS = ["backbone.weights=null", "backbone.image_size=64", "cache_features.views=1", "fine_tune.mode=always"]


def single_faults(scene: Scene, *, quick: bool) -> Iterator[Outcome]:
    """Every fault in turn."""
    yield from faults_of_files(scene, quick=quick)
    yield full_disk(scene)
    yield from read_only(scene)
    yield store_deleted(scene)
    yield unreachable(scene)
    yield from vanished(scene)


def prove(raw: Path, folder: Path, *, kills: int, quick: bool, seed: int) -> dict[str, object]:
    """Print the table and return the figures."""
    make = project_maker(raw, choose_images(raw, _IMAGES), _SETTINGS)
    source, reference = undisturbed(make, folder / "undisturbed")
    print(
        f"reference: {source.receipt['images']} photos, {reference.total} rows, {reference.seconds:.1f} s from nothing,"
        f" {reference.seconds_full:.1f} s with nothing to do"
    )
    start = time.perf_counter()
    rounds = Rounds(make, folder / "kills", source, reference, seed=seed)
    tally = rounds.run(kills, on_kill=lambda done: print(f"\r{done} of {kills} kills", end="", file=sys.stderr))
    print(file=sys.stderr)
    seconds = time.perf_counter() - start
    print("| fault | what happens | message | wrong values read |")
    print("|---|---|---|---|")
    killed = Outcome(
        f"{tally.kills} kills -9, {tally.kills_during_a_flush} of them during a flush",
        f"{tally.rounds} rounds, {tally.several_writers} with several writers; verify finds nothing after any; all "
        f"{tally.later_runs_completed} later runs and {tally.runs_beside_a_kill} runs beside a killed one complete; "
        f"gc removes all {tally.leftover_temporary_files} leftover files",
        wrong=tally.differences,
        problems=tally.problems,
    )
    _print_row(killed)
    outcomes = [killed]
    for outcome in single_faults(Scene(make, folder / "faults", source, reference), quick=quick):
        _print_row(outcome)
        outcomes.append(outcome)
    return {
        **asdict(tally),
        "seconds_per_kill": round(seconds / max(1, tally.kills), 2),
        "single_faults": sum(not outcome.skipped for outcome in outcomes[1:]),
        "skipped": [outcome.fault for outcome in outcomes if outcome.skipped],
        "wrong_values_read": sum(outcome.wrong for outcome in outcomes),
        "problems": [problem for outcome in outcomes for problem in outcome.problems],
    }


def _print_row(outcome: Outcome) -> None:
    message = outcome.message.replace("|", "\\|") or "none"
    print(f"| {outcome.fault} | {outcome.happens} | {message} | {outcome.wrong} |", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress.faults", description="The feature store under kills and faults."
    )
    parser.add_argument("photos", type=Path, nargs="?", help="a folder of labelled photos; by default digits")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of which workers are killed")
    parser.add_argument("--quick", action="store_true", help="20 kills, and no fault that converts the backbone again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regraft-faults-") as temporary:
        folder = Path(temporary)
        raw = arguments.photos or folder / "digits"
        if not arguments.photos:
            write_digits(raw)
        kills = 20 if arguments.quick else arguments.kills
        print(describe_machine())
        result = prove(raw, folder, kills=kills, quick=arguments.quick, seed=arguments.seed)
    print(json.dumps(result))
    if result["problems"] or result["wrong_values_read"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
