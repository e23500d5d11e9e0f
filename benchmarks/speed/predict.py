"""`regraft predict` where nothing that trains is installed, against `keras.Model.predict`, on the same photos.

    python -m benchmarks.speed.predict PHOTOS PROJECT [--photos 1000] [--repeats 3] [--python PYTHON]

PROJECT is a folder in which the pipeline has run: its models/model.onnx, and the same network by `regraft keras`. Ours
runs in a virtual environment with ONNX Runtime, NumPy and Pillow alone, made for it unless --python names one.
Baseline: `benchmarks.speed.keras_predict`, a process too. A cold start is a whole process for one photo; the rate is
that of the photos after the first: (photos - 1) / (seconds for all - seconds for one).
Medians of repeats that take turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.projects import Ended, describe_machine, run

ROOT = Path(__file__).parents[2]
_NEEDED = ("onnxruntime", "numpy", "pillow")
_SUFFIXES = (".jpg", ".jpeg", ".png")  # that Keras' reader knows as well
Runs = dict[str, list[Ended]]


def measure(photos: list[Path], project: Path, python: Path, *, repeats: int) -> dict[str, Any]:
    """Classify one photo and all of them in both ways, `repeats` times in turn."""
    with tempfile.TemporaryDirectory(prefix="regraft-predict-") as temporary:
        folder = Path(temporary)
        model = _keras_file(project, folder)
        one, many = _linked(photos[:1], folder / "one"), _linked(photos, folder / "many")
        runs: Runs = {name: [] for name in ("regraft one", "regraft", "keras one", "keras")}
        for _ in range(repeats):
            for which, links in ((" one", one), ("", many)):
                runs[f"regraft{which}"].append(_ours(python, project, links, folder / "rows.jsonl"))
                runs[f"keras{which}"].append(_theirs(model, links, folder / "answers.npz"))
        same = _same_class(folder, project)
    seconds = {name: statistics.median(each.seconds for each in ended) for name, ended in runs.items()}
    rates = {side: (len(photos) - 1) / (seconds[side] - seconds[f"{side} one"]) for side in ("regraft", "keras")}
    return {
        "photos": len(photos),
        "cold_start_seconds": round(seconds["regraft one"], 2),
        "keras_cold_start_seconds": round(seconds["keras one"], 2),
        "images_per_second": round(rates["regraft"], 1),
        "keras_images_per_second": round(rates["keras"], 1),
        "ratio": round(rates["regraft"] / rates["keras"], 2),
        "seconds": round(seconds["regraft"], 1),
        "keras_seconds": round(seconds["keras"], 1),
        "ratio_of_seconds": round(seconds["keras"] / seconds["regraft"], 2),
        "cold_start_ratio": round(seconds["keras one"] / seconds["regraft one"], 1),
        "peak_memory_mb": round(max(each.peak_memory_mb for each in runs["regraft"])),
        "keras_peak_memory_mb": round(max(each.peak_memory_mb for each in runs["keras"])),
        "same_class": round(same, 4),
    }


def _ours(python: Path, project: Path, folder: Path, rows: Path) -> Ended:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [str(python), "-m", "regraft.serving", str(project / "models" / "model.onnx"), str(folder)]
    return run([*command, "--output", str(rows), "--threshold", "0"], rows.parent, environment, log=rows.parent / "log")


def _theirs(model: Path, folder: Path, answers: Path) -> Ended:
    command = [sys.executable, "-m", "benchmarks.speed.keras_predict", str(model), str(folder), str(answers)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return run(command, answers.parent, environment, log=answers.parent / "log")


def _keras_file(project: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "flows.cli", "keras", str(folder / "model.keras")]
    run(command, project, dict(os.environ), log=folder / "log")
    return folder / "model.keras"


def _linked(photos: list[Path], folder: Path) -> Path:
    folder.mkdir()
    for number, photo in enumerate(photos):
        (folder / f"{number:06}{photo.suffix.lower()}").symlink_to(photo.resolve())
    return folder


def _same_class(folder: Path, project: Path) -> float:
    """Return the share of photos to which both give the same class; Keras resizes in its own way."""
    from regraft.serving.shipped_model import ShippedModel

    names = ShippedModel(project / "models" / "model.onnx").class_names
    rows = map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
    ours = {Path(row["path"]).name: row["class"] for row in rows}
    with np.load(folder / "answers.npz") as answers:
        theirs = zip(answers["names"], answers["probabilities"].argmax(axis=1), strict=True)
        return float(np.mean([ours[str(name)] == names[index] for name, index in theirs]))


@contextmanager
def _environment(given: Path | None) -> Iterator[Path]:
    """Yield the interpreter of a virtual environment that has the three libraries in the versions of this one."""
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="regraft-venv-") as temporary:
        subprocess.run([sys.executable, "-m", "venv", temporary], check=True)
        python = Path(temporary, "bin", "python")
        packages = [f"{name}=={version(name)}" for name in _NEEDED]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        yield python


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="regraft predict against keras.Model.predict.")
    parser.add_argument("folder", metavar="PHOTOS", type=Path, help="a folder of photos")
    parser.add_argument("project", metavar="PROJECT", type=Path, help="a folder in which the pipeline has run")
    parser.add_argument("--photos", type=int, default=1000, metavar="N", help="so many of them (default: 1000)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of each (default: 3)")
    parser.add_argument("--python", type=Path, help="an interpreter with ONNX Runtime, NumPy and Pillow alone")
    arguments = parser.parse_args()
    found = (path for path in sorted(arguments.folder.rglob("*")) if path.suffix.lower() in _SUFFIXES)
    photos = list(islice(found, arguments.photos))
    if len(photos) < 2:
        sys.exit(f"there are fewer than two photos in {arguments.folder}")
    with _environment(arguments.python and arguments.python.absolute()) as python:
        result = measure(photos, arguments.project.resolve(), python, repeats=arguments.repeats)
    print(describe_machine())
    print(f"{result['photos']} photos, Regraft and Keras; the same class for {result['same_class']:.1%}")
    for words, name, ratio in (
        ("images/s", "images_per_second", "ratio"),
        ("seconds until the first answer", "cold_start_seconds", "cold_start_ratio"),
        ("seconds for all", "seconds", "ratio_of_seconds"),
    ):
        print(f"  {words}: {result[name]} and {result[f'keras_{name}']}, {result[ratio]}x")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
