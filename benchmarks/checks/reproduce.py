"""Ten runs, each on more photos and with other settings, and then one of the first made again: are the bytes the same?

    python -m benchmarks.checks.reproduce [DIR] [--runs 10] [--run 3] [--images 600] [--image-size 96] [--epochs 1]

Without DIR the photos are digits of the demo. Half-way a module of the code changes as well. Nothing that the
reproduction needs but the photos in DVC's cache is left: the store, the run cache, build/ and models/ are removed.
"""

import argparse
import json
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.support.projects import REGRAFT, Project, describe_machine, run, temporary_project
from regraft.converters.demo_data import write_digits
from regraft.core.files import read_json

_FIRST = 0.4  # share of the photos that the first run has
_CHANGED = "regraft/training/heads.py"  # the module that changes half-way
_LOST = ("build", "models", ".dvc/cache/runs")  # before the reproduction
_REFUSED = 2


def measure(photos: list[tuple[Path, Path]], *, runs: int, wanted: int, settings: list[str]) -> dict[str, Any]:
    """Run night after night, and make one of them again.

    Args:
        photos: each with its place in the data folder, in the order in which they come.
        runs: how many.
        wanted: the number of the run that is made again, from 1 on.
        settings: as in `tests.support.pipeline.write_params`.
    """
    with temporary_project(settings) as project:
        _commit_all(project)
        log = project.root.parent / "runs.log"
        arrivals = _shares(photos, runs)
        for number, arriving in enumerate(arrivals):
            _begin_night(project, number, arriving, change_code=number == runs // 2)
            begun = time.monotonic()
            run([*REGRAFT, "retrain"], project.root, project.environment, log=log, accepted=(0, _REFUSED))
            receipt = _receipts(project)[-1]
            told = f"{receipt['data']['files']} files, model {receipt['model'][:12]}, {receipt['name']}"
            print(f"run {number + 1:2}: {time.monotonic() - begun:6.1f} s, {told}", flush=True)
        receipts = _receipts(project)
        then = receipts[wanted - 1]
        for name in _LOST:
            shutil.rmtree(project.root / name)
        begun = time.monotonic()
        command = [*REGRAFT, "reproduce", then["run"], "--trust", f"refs/regraft/runs/{then['run']}"]
        ended = run(command, project.root, project.environment, log=log, accepted=(0, 1, _REFUSED))
        said = log.read_text().splitlines()
        now = next((line.split()[1] for line in said if line.startswith("now ")), None)
        return {
            "runs": len(receipts),
            "models": len({receipt["model"] for receipt in receipts}),
            "then": then["model"],
            "now": now,
            "seconds": round(time.monotonic() - begun, 1),
            "status": ended.status,
            "said": said[-12:],
        }


def _receipts(project: Project) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted((project.root / "receipts").glob("*.json"))]


def _shares(photos: list[tuple[Path, Path]], runs: int) -> list[list[tuple[Path, Path]]]:
    """Cut the photos into what each run has anew."""
    first = round(_FIRST * len(photos))
    ends = [first + (len(photos) - first) * number // max(1, runs - 1) for number in range(runs)]
    return [photos[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _begin_night(project: Project, number: int, arriving: list[tuple[Path, Path]], *, change_code: bool) -> None:
    """Let photos arrive, edit the settings without a commit, and once the code."""
    for source, place in arriving:
        (project.raw / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, project.raw / place)
    path = project.root / "params.yaml"
    lines = path.read_text().splitlines()
    seed = next(index for index, line in enumerate(lines) if line.startswith("seed:"))
    lines[seed] = f"seed: {20261124 + number}"
    path.write_text("\n".join(lines) + "\n")
    if change_code:
        with (project.root / _CHANGED).open("a") as file:
            file.write("\n_CHANGED_HALF_WAY = True\n")


def _commit_all(project: Project) -> None:
    name = ["-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost"]
    for command in (["add", "--all"], [*name, "commit", "--quiet", "--message", "begin"]):
        run(["git", *command], project.root, project.environment, log=project.root.parent / "git.log")


def _photos_of(folder: Path, images: int | None) -> list[tuple[Path, Path]]:
    """Return the files of a data folder in random order, the first ones of every class before all others."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".gitignore")
    random.Random(1).shuffle(files)  # noqa: S311 - which photo comes first is no secret
    rank: dict[Path, int] = {}
    seen: dict[Path, int] = {}
    for path in files:
        rank[path] = seen[path.parent] = seen.get(path.parent, 0) + 1
    files = sorted(files, key=lambda path: rank[path])[:images]
    return [(path, path.relative_to(folder)) for path in files]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="A former run made again.")
    parser.add_argument("photos", type=Path, nargs="?", help="a folder of labelled photos; without it digits")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--run", type=int, default=3, help="the one that is made again, from 1 on")
    parser.add_argument("--images", type=int, default=600, help="use so many photos")
    parser.add_argument("--image-size", default="96", help="side in pixels of the network's input")
    parser.add_argument("--epochs", type=int, default=1, help="of fine-tuning")
    arguments = parser.parse_args()
    if not 1 <= arguments.run <= arguments.runs:
        sys.exit(f"--run is a number from 1 to {arguments.runs}")
    settings = [f"backbone.image_size={arguments.image_size}", f"fine_tune.epochs={arguments.epochs}"]
    settings += ["expectations.enough_images_per_class.min_value=1", "promote.min_photos=1"]
    print(describe_machine())
    with temporary_project([]) as scratch:
        folder = arguments.photos
        if folder is None:
            folder = scratch.raw
            write_digits(folder)
        photos = _photos_of(folder.resolve(), arguments.images)
        result = measure(photos, runs=arguments.runs, wanted=arguments.run, settings=settings)
    print("\n".join(result.pop("said")))
    print(f"run {arguments.run} of {arguments.runs}: then {result['then']}\n{'now':>16} {result['now']}")
    print("the same bytes" if result["now"] == result["then"] else "OTHER BYTES")
    print(json.dumps(result))
    sys.exit(result["status"])


if __name__ == "__main__":
    main()
