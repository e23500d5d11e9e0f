"""One store for all checkouts of a project: what an experiment, a worker of DVC's queue and a clone compute again.

    python -m benchmarks.checkouts DIR [--photos 100] [--more 10] [--until cache_features] [--set NAME=VALUE ...]

DIR is a folder of labelled photos. A project computes the features of some of them (--until: does more) and pushes to a
DVC remote. Then, each by the commands that a person types:

    temp          dvc exp run --temp, with one augmented view less: every photo is known
    queue         dvc exp run --queue, dvc queue start: again one view less
    clone         git clone, dvc pull, new photos, dvc repro; the head alone on one view, no store
    activations   the same with fine-tuning, which reads what features.arrow does not have; no store
    shared        the same with the shared store that the project has filled

`forward_passes` are those of photos that were known, `of_new` those of photos that joined. The last line is one JSON
object.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from regraft.files import read_json
from regraft.photos.dataset import read_dataset
from tests.support.machine import describe_machine
from tests.support.photos import usable_photos
from tests.support.pipeline import ROOT, Project, temporary_project, write_params

_SETTINGS = [  # cached activations, trained on for a moment
    "validate_data.enough_images_per_class.min=1",
    "cache_features.views=2",
    "fine_tune.mode=always",
    "fine_tune.layers=top",
    "fine_tune.epochs=1",
]
_DVC = (sys.executable, "-m", "dvc")
_QUEUE_SECONDS = 500  # until a worker of the queue must have ended
_WHO = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class Checkout:
    """A folder of the project, and commands in it."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root, self.environment, self.printed = root, environment, ""
        self.seconds = 0.0  # of the last command

    def do(self, *command: str) -> str:
        """Run a command, and return what it printed; a failure ends this process."""
        start = time.perf_counter()
        ended = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True)
        self.printed, self.seconds = ended.stdout + ended.stderr, round(time.perf_counter() - start, 1)
        if ended.returncode:
            sys.exit(f"{' '.join(command)} ended with status {ended.returncode}:\n{self.printed[-4000:]}")
        return self.printed

    def add(self, photos: pd.DataFrame) -> None:
        """Copy photos into the data folder, and let DVC track it."""
        for path, name, digest in zip(photos.path, photos.class_name, photos.digest, strict=True):
            target = self.root / "data/raw" / name / f"{digest[:16]}{Path(path).suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        self.do(*_DVC, "add", "--quiet", "data/raw")

    def commit(self, message: str) -> None:
        """Commit everything."""
        self.do("git", "add", "--all")
        self.do("git", "commit", "--quiet", "-m", message)

    def clone(self, folder: Path, settings: list[str]) -> "Checkout":
        """Clone the project and pull what it pushed; the clone has the settings, and no store."""
        self.do("git", "clone", "--quiet", str(self.root), str(folder))
        clone = Checkout(folder, self.environment)
        clone.do(*_DVC, "pull", "--quiet", "data/raw.dvc")
        clone.do(*_DVC, "pull", "--quiet", *YAML(typ="safe").load(folder / "dvc.lock")["stages"])
        write_params(folder / "params.yaml", settings)
        return clone

    def dataset(self) -> pd.DataFrame:
        """Return the rows of the data set."""
        return read_dataset(self.root / "build/dataset.parquet", self.root / "data/raw").rows


def measure(photos: Path, count: int, more: int, until: str, settings: list[str]) -> dict[str, dict[str, Any]]:
    """Return what each checkout computed; `until` is the last stage."""
    sources = usable_photos(photos)
    if len(sources) < count + more:
        sys.exit(f"{photos} must have at least {count + more} usable photos. Received: {len(sources)}.")
    settings = [*_SETTINGS, *settings]
    with temporary_project(settings) as project:
        folder, new = project.root.parent, sources.iloc[count : count + more]
        with_store = f"machine.shared_store={folder / 'bucket'}"
        main = _first_run(project, sources.head(count), settings, with_store, until)
        results = {"temp": _temp(main, until), "queue": _queue(main, until)}
        alone = ["fine_tune.mode=off", "cache_features.views=0"]
        for name, own in (("clone", alone), ("activations", []), ("shared", [with_store])):
            clone = main.clone(folder / name, [*settings, *own])
            results[name] = _shown(name, _with_more(clone, new, until))
    return results


def _first_run(project: Project, photos: pd.DataFrame, settings: list[str], with_store: str, until: str) -> Checkout:
    """Retrain, fill a shared store as well, and push."""
    main, folder = Checkout(project.root, project.environment | _WHO), project.root.parent
    write_params(main.root / "params.yaml", [*settings, with_store])
    main.do(*_DVC, "remote", "add", "--quiet", "--default", "remote", str(folder / "remote"))
    main.add(photos)
    main.do(*_DVC, "repro", until)
    _shown("first run", _report(main.root / "reports/features.json", {"seconds": main.seconds}))
    write_params(main.root / "params.yaml", settings)  # of it only one clone knows
    main.commit("The first run")
    main.do(*_DVC, "push", "--quiet")
    return main


def _temp(main: Checkout, until: str) -> dict[str, Any]:
    main.do(*_DVC, "exp", "run", "--temp", "--name", "temp", "-S", "cache_features.views=1", until)
    return _shown("temp", _of_experiment(main, "temp"))


def _queue(main: Checkout, until: str) -> dict[str, Any]:
    main.do(*_DVC, "exp", "run", "--queue", "--name", "queued", "-S", "cache_features.views=0", until)
    start = time.perf_counter()
    main.do(*_DVC, "queue", "start")
    while not re.search(r"\bqueued\b.*\b(Success|Failed)\b", status := main.do(*_DVC, "queue", "status")):
        if time.perf_counter() - start > _QUEUE_SECONDS:
            sys.exit(f"the worker of the queue has not ended after {_QUEUE_SECONDS} s:\n{status}")
        time.sleep(2)
    main.seconds = round(time.perf_counter() - start, 1)
    return _shown("queue", _of_experiment(main, "queued"))


def _of_experiment(main: Checkout, name: str) -> dict[str, Any]:
    """Return what an experiment has computed, from the report that it recorded."""
    seconds, target = main.seconds, main.root.parent / f"{name}.json"
    main.do(*_DVC, "get", "--quiet", "--rev", name, "-o", str(target), ".", "reports/features.json")
    return _report(target, {"of_new": 0, "seconds": seconds})


def _with_more(clone: Checkout, photos: pd.DataFrame, until: str) -> dict[str, Any]:
    """Let photos join a clone and retrain; return what that computed, and what the run said of it."""
    known = set(clone.dataset().digest)
    clone.add(photos)
    clone.do(*_DVC, "repro", until)
    file, rows = clone.root / "reports/features.json", clone.dataset()
    new = rows[~rows.digest.isin(known)]
    views = read_json(file)["views"]
    of_new = int((new.split == "train").sum()) * views + int((new.split != "train").sum())
    said = [line.strip() for line in clone.printed.splitlines() if "activations" in line]
    return _report(file, {"of_new": of_new, "seconds": clone.seconds, "said": said[:1]})


def _report(file: Path, more: dict[str, Any]) -> dict[str, Any]:
    report = read_json(file)
    found = {"forward_passes": report["computed"] - more.get("of_new", 0), "rows": report["rows"]}
    return {**found, **more, "from_features_file": report["from_features_file"]}


def _shown(name: str, found: dict[str, Any]) -> dict[str, Any]:
    print(f"{name}: {json.dumps(found)}", flush=True)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkouts", description="One store for all checkouts.")
    parser.add_argument("photos", type=Path, help="a folder of labelled photos in any of the three layouts")
    parser.add_argument("--photos", dest="count", type=int, default=100, help="of the first run")
    parser.add_argument("--more", type=int, default=10, help="photos that join in a clone")
    parser.add_argument("--until", default="cache_features", help="the last stage that is run; evaluate: all of them")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of params.yaml")
    arguments = parser.parse_args()
    if not arguments.photos.is_dir():
        sys.exit(f"there is no folder {arguments.photos}")
    print(describe_machine(), flush=True)
    os.chdir(ROOT)
    print(
        json.dumps(measure(arguments.photos.resolve(), arguments.count, arguments.more, arguments.until, arguments.set))
    )


if __name__ == "__main__":
    main()
