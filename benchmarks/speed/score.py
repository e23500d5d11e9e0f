"""Scoring a folder every day: seconds, and how often the model was run, at first, without news and with a few more.

    python -m benchmarks.speed.score DIR [--photos 5000] [--more 50] [--quick]

DIR is a folder of labelled photos. 300 of them train a model in a temporary project, which goes into production. The
others, written as JPEG of several qualities until there are enough, are the folder that is scored: `regraft score` as
a person starts it, once for all, once more, after half of the photos were renamed, and after more have come. What a
run took is from the start of its process to its end.
"""

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.support.projects import (
    HEAD_ONLY,
    REGRAFT,
    Project,
    describe_machine,
    run,
    temporary_project,
    write_params,
)
from regraft.core.files import read_json
from regraft.photos.images import load_rgb

_TRAINED_ON = 300
_QUALITIES = range(90, 40, -5)  # of the JPEG that a photo is written as, the next one whenever all have been


def measure(photos: Path, count: int, more: int) -> dict[str, Any]:
    """Return what each run took and did."""
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    paths = [paths[place] for place in np.random.default_rng(1).permutation(len(paths))]
    settings = [*HEAD_ONLY, "score.photos=incoming"]
    with temporary_project(settings) as project:
        for path in paths[:_TRAINED_ON]:
            (project.raw / path.parent.name).mkdir(exist_ok=True)
            shutil.copy(path, project.raw / path.parent.name)
        _regraft(project, "retrain")
        incoming = project.root / "incoming"
        incoming.mkdir()
        _write(paths[_TRAINED_ON:], incoming, range(count))
        runs = {"first": _score(project), "nothing new": _score(project)}
        for path in sorted(incoming.iterdir())[: count // 2]:
            path.rename(path.with_name(f"renamed-{path.name}"))
        runs["half of them renamed"] = _score(project)
        _write(paths[_TRAINED_ON:], incoming, range(count, count + more))
        runs[f"{more} more"] = _score(project)
        write_params(project.root / "params.yaml", [*settings, "score.keep_days=0", "train_head.penalty=0.3"])
        _regraft(project, "retrain")
        _regraft(project, "promote", "--force", "for a measurement")
        runs["another head"] = _score(project)
        return {"photos": count, "more": more, "runs": runs}


def _write(paths: list[Path], folder: Path, numbers: range) -> None:
    for number in numbers:
        times, place = divmod(number, len(paths))
        Image.fromarray(load_rgb(paths[place])).save(folder / f"{number:06}.jpg", quality=_QUALITIES[times])


def _regraft(project: Project, *arguments: str) -> float:
    log = project.root.parent / "command.log"
    return run([*REGRAFT, *arguments], project.root, project.environment, log=log, accepted=(0, 2)).seconds


def _score(project: Project) -> dict[str, Any]:
    seconds = _regraft(project, "score")
    said = (project.root.parent / "command.log").read_text().strip().splitlines()[-1]
    found = re.search(r"the model was run on ([\d,]+)", said)
    counts = read_json(project.root / "reports" / "scores.json")["counts"]
    return {
        "seconds": round(seconds, 1),
        "forward_passes": int(found[1].replace(",", "")) if found else 0,
        "photos": counts["photos"],
        "said": said,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Scoring a folder every day.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder of labelled photos")
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--more", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="200 photos, and 10 more")
    arguments = parser.parse_args()
    count, more = (200, 10) if arguments.quick else (arguments.photos, arguments.more)
    result = measure(arguments.folder, count, more)
    print(describe_machine())
    for name, took in result["runs"].items():
        print(f"{name:22} {took['seconds']:7.1f} s, {took['forward_passes']:5} forward passes; {took['said']}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
