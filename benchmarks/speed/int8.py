"""The shipped file in int8 against the same in float32 and in Keras, in one run.

    python -m benchmarks.speed.int8 DIR [--head] [--project FOLDER] [--quick]

The stages run on the photos of DIR with quantise.mode auto. Rates are those of the network, from prepared pixels in
memory to probabilities: Keras by `keras.Model.predict` in batches of 32, ONNX Runtime one photo at a time, on as many
threads as there are cores. With one core everything runs on that core. Rounds of the three take turns.
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
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.projects import HEAD_ONLY, ROOT, describe_machine, run_stages
from regraft.core.files import read_json, readable_bytes
from regraft.core.params_file import load_params
from regraft.core.processor import this_processor
from regraft.export.classifier import OnnxClassifier
from regraft.export.finishing import write_keras
from regraft.photos.dataset import read_dataset
from regraft.photos.images import Threads


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
    command = [sys.executable, "-m", "benchmarks.speed.int8", str(project), "--cores", ",".join(map(str, cores))]
    command += ["--images", str(images), "--repeats", str(repeats)]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(ran.stdout.splitlines()[-1])


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The shipped file in int8, in float32 and in Keras.")
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
        settings = ["quantise.mode=auto", *(HEAD_ONLY if arguments.head or arguments.quick else [])]
        project = arguments.project or run_stages(
            Path(temporary, "stages"), arguments.photos, settings, until="quantise"
        )
        print(json.dumps(report(project, quick=arguments.quick)))


def report(project: Path, *, quick: bool) -> dict[str, Any]:
    """Print what was found, and return it."""
    images, repeats = (64, 3) if quick else (256, 7)
    cores = sorted(os.sched_getaffinity(0))
    project = project.resolve()
    found = read_json(project / "reports" / "int8.json")
    print(describe_machine(), f"\n{this_processor()}\n{found['precision']}: {found['words']}")
    result: dict[str, Any] = {"processor": str(this_processor())} | {
        name: found.get(name) for name in ("precision", "words", "bytes", "test")
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
    return result


if __name__ == "__main__":
    main()
