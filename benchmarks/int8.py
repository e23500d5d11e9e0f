"""The shipped file in int8 against the same in float32 and in Keras, in one run; and a network made to fail the budget.

    python -m benchmarks.int8 DIR [--head] [--project FOLDER] [--quick]

The stages run on the photos of DIR with quantise.mode auto. Rates are those of the network, from prepared pixels in
memory to probabilities: Keras by `keras.Model.predict` in batches of 32, ONNX Runtime one photo at a time, on as many
threads as there are cores. With one core everything runs on that core. Rounds of the three take turns.

The network that is made has channels a thousand times as large as others in nearly every layer. In float32 it computes
what it did without; one scale for all channels of an activation loses the small ones.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from regraft.export.classifier import OnnxClassifier
from regraft.export.in_keras import write_keras
from regraft.export.int8_budget import choose
from regraft.export.int8_photos import material_of
from regraft.export.processor import this_processor
from regraft.files import read_json, readable_bytes
from regraft.params_file import load_params
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.images import Threads
from regraft.photos.preparation import Preparation
from tests.support.conv_files import conv_file
from tests.support.machine import describe_machine
from tests.support.pipeline import HEAD_ONLY, ROOT, STAGES, run_stage, stages_folder

_MADE = 1500  # photos, at most, that the network made to fail is judged on


def make_project(raw: Path, folder: Path, *, head: bool) -> Path:
    """Run the stages up to the int8 file on photos."""
    settings = ["quantise.mode=auto", *(HEAD_ONLY if head else [])]
    project = stages_folder(folder, raw, settings)
    for stage in STAGES[: STAGES.index("quantise") + 1]:
        ended = run_stage(stage, project, log=folder / f"{stage}.log")
        print(f"{stage}: {ended.seconds:.0f} s", flush=True)
    return project


def rates_of(project: Path, *, images: int, repeats: int) -> dict[str, float]:
    """Return images per second of the three, on the cores that this process may use: medians of interleaved rounds."""
    import keras

    params = load_params(project / "params.yaml")
    files = {"float32": project / params.paths.onnx, "int8": project / params.paths.onnx_int8}
    classifier = OnnxClassifier(files["float32"])
    dataset = read_dataset(project / params.paths.dataset, project / params.paths.raw).of("test").head(images)
    pixels = np.stack([classifier.preparation(dataset.read_photo(photo)) for photo in dataset.photos()])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        write_keras(path, params.backbone, network=project / params.paths.model, onnx=files["float32"])
        model = keras.models.load_model(path, compile=False)
    as_floats = pixels.astype(np.float32)
    ways: dict[str, Callable[[], object]] = {"keras": lambda: model.predict(as_floats, batch_size=32, verbose=0)}
    # A prepared photo passes through the preparation of the file as it is.
    ways |= {name: _by_onnx(OnnxClassifier(file), pixels) for name, file in files.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if repeat:  # the first round warms up
                taken[name].append(len(pixels) / (time.perf_counter() - start))
    return {name: round(statistics.median(found), 1) for name, found in taken.items()}


def _by_onnx(classifier: OnnxClassifier, pixels: np.ndarray) -> Callable[[], object]:
    return lambda: list(Threads(0).map(classifier.probabilities, list(pixels)))


def _rates_in_a_process(project: Path, cores: Sequence[int], *, images: int, repeats: int) -> dict[str, float]:
    """Return the rates on some cores: a process of its own, since TensorFlow counts them when it starts."""
    command = [sys.executable, "-m", "benchmarks.int8", str(project), "--cores", ",".join(map(str, cores))]
    command += ["--images", str(images), "--repeats", str(repeats)]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(ran.stdout.splitlines()[-1])


def made_to_fail(project: Path) -> dict[str, Any]:
    """Return which rungs were tried for a network that int8 cannot follow, and what ships."""
    params = load_params(project / "params.yaml")
    dataset = read_dataset(project / params.paths.dataset, project / params.paths.raw)
    preparation = Preparation(64, params.preprocess.crop_fraction)
    train, rows = _some(dataset), dataset.of("val", "train").rows
    judged = dataset.with_rows(rows[~rows.digest.isin(train.rows.digest)].reset_index(drop=True)).head(_MADE)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {}
        for name, hard in {"usual channels": (), "made to fail": range(7)}.items():
            path = Path(folder, "made.onnx")
            model = conv_file(train, preparation, hard=hard)
            onnx.save(model, path)
            with material_of(OnnxClassifier(path), judged, train, Threads(0), scratch=Path(folder)) as material:
                choice = choose(model, material, params.quantise, lambda graph, rows: None)
            found[name] = {"ships": choice.rung, "why": choice.words, "steps": [asdict(step) for step in choice.steps]}
    return found


def _some(dataset: Dataset) -> Dataset:
    rows = dataset.of("train").rows.groupby("class_index").head(20)
    return dataset.with_rows(rows.reset_index(drop=True))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8", description="The shipped file in int8, in float32 and in Keras."
    )
    parser.add_argument("photos", type=Path, help="a folder of labelled photos")
    parser.add_argument("--head", action="store_true", help="train the head alone")
    parser.add_argument("--project", type=Path, help="a folder in which the stages have run, instead of running them")
    parser.add_argument("--quick", action="store_true", help="64 images a round instead of 256, three rounds of seven")
    for name in ("--cores", "--images", "--repeats"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """The command line."""
    arguments = _parsed()
    if arguments.cores:
        os.sched_setaffinity(0, set(map(int, arguments.cores.split(","))))
        rates = rates_of(arguments.photos, images=int(arguments.images), repeats=int(arguments.repeats))
        print(json.dumps(rates))
        return
    with tempfile.TemporaryDirectory(prefix="regraft-int8-") as temporary:
        project = arguments.project or make_project(arguments.photos, Path(temporary, "stages"), head=arguments.head)
        print(json.dumps(report(project, quick=arguments.quick)))


def report(project: Path, *, quick: bool) -> dict[str, Any]:
    """Print what was found, and return it."""
    images, repeats = (64, 3) if quick else (256, 7)
    cores = sorted(os.sched_getaffinity(0))
    project = project.resolve()
    found = read_json(project / "reports" / "int8.json")
    print(describe_machine(), f"\n{this_processor()}\n{found['rung']}: {found['words']}")
    result: dict[str, Any] = {"processor": str(this_processor())} | {
        name: found.get(name) for name in ("rung", "words", "bytes", "test")
    }
    if test := found.get("test"):
        accuracy, gain = test["accuracy"], test["difference"]
        print(
            f"accuracy on {test['images']} test photos: float32 {accuracy['float32']:.2%}, "
            f"int8 {accuracy['int8']:.2%}; difference {gain['value']:+.2%} ({gain['low']:+.2%} to {gain['high']:+.2%})"
        )
    sizes = {path.name: readable_bytes(path.stat().st_size) for path in sorted((project / "models").glob("*.onnx"))}
    print(f"sizes: {sizes}")
    for name, some in {"all_cores": cores, "one_core": cores[:1]}.items():
        rates = _rates_in_a_process(project, some, images=images, repeats=repeats)
        result[name] = rates
        ahead = {name: f"{rates['int8'] / rates[name]:.2f}" for name in ("float32", "keras")}
        print(
            f"{len(some)} core(s): Keras {rates['keras']}, float32 {rates['float32']}, int8 {rates['int8']} images/s; "
            f"int8 is {ahead['float32']} times float32, {ahead['keras']} times Keras"
        )
    result["made"] = made_to_fail(project)
    for name, made in result["made"].items():
        print(f"a network of random convolutions, {name}: ships as {made['ships']} ({made['why']})")
        for step in made["steps"]:
            print(f"    {step['rung']}: {'passed' if step['passed'] else 'passed over'}: {step['words']}")
    return result


if __name__ == "__main__":
    main()
