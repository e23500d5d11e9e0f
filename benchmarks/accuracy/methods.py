"""The methods that `benchmarks.accuracy` compares: each trains on a fold and says what it thinks of the test photos."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from benchmarks.support.projects import ROOT, run, stages_folder
from regraft.export.classifier import OnnxClassifier, probabilities_of
from regraft.photos.dataset import read_dataset
from regraft.photos.images import Threads

_LAST = "export_onnx"  # what comes after it measures the file
_UNTIMED = ("record_code", "validate_data", "preprocess", "check_features", _LAST)  # the recipes do nothing like them
_FEW = "expectations.enough_images_per_class.min_value=1"


@dataclass(frozen=True, slots=True)
class Said:
    """What a method said of the test photos of a fold."""

    digests: np.ndarray  # str, (n,)
    probabilities: np.ndarray  # float32, (n, classes), in the order of the classes' folders
    seconds: float  # of the processes that lead from the photos to the trained model


@dataclass(frozen=True, slots=True)
class Regraft:
    """The stages of a checkout of this project, up to the file that ships."""

    settings: tuple[str, ...] = ()
    checkout: Path = ROOT

    def __call__(self, folder: Path, raw: Path, *, seed: int | None = None) -> Said:
        """Train in `folder` on the photos in `raw`, with the seed of params.yaml or another one."""
        seeds = [] if seed is None else [f"seed={seed}"]
        project = stages_folder(folder, raw, [_FEW, *self.settings, *seeds], checkout=self.checkout)
        environment = os.environ | {"PYTHONPATH": str(self.checkout)}
        seconds = 0.0
        for stage in _stages(self.checkout):
            ended = run([sys.executable, "-m", f"tasks.{stage}"], project, environment, log=project / f"{stage}.log")
            seconds += 0.0 if stage in _UNTIMED else ended.seconds
        test = read_dataset(project / "build" / "dataset.parquet", project / "data" / "raw").of("test")
        file = OnnxClassifier(project / "models" / "model.onnx")
        said = probabilities_of(file, test, Threads(0), stored=None)
        shutil.rmtree(project / "build")  # gigabytes
        return Said(np.array([Path(path).stem for path in test.rows.path]), said, seconds)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Another process that trains on {train,val,test}/<class>/ and writes what it says of test."""

    module: str
    options: tuple[str, ...] = ()

    def __call__(self, folder: Path, raw: Path, *, seed: int | None = None) -> Said:
        """Train in `folder` on the photos in `raw`; without a seed with that of params.yaml."""
        project = stages_folder(folder, raw, [_FEW, *([] if seed is None else [f"seed={seed}"])])
        path = folder / "predictions.npz"
        command = [sys.executable, "-m", self.module, str(project), "--predictions", str(path), *self.options]
        run(command, project, os.environ | {"PYTHONPATH": str(ROOT)}, log=folder / "log")
        took = json.loads((folder / "log").read_text().splitlines()[-1])["seconds"]
        with np.load(path) as arrays:
            return Said(arrays["digests"], arrays["probabilities"], took)


def _stages(checkout: Path) -> list[str]:
    names = list(YAML(typ="safe").load((checkout / "dvc.yaml").read_text())["stages"])
    return [name for name in names[: names.index(_LAST) + 1] if name != "record_code"]  # which is about DVC
