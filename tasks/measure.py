"""What is known of a shipped file and not needed every night: how fast it is, and how it does on damaged photos.

    regraft report --measure     asks for it

Reads models/model.onnx (and model.int8.onnx beside it), build/dataset.parquet, build/left_out.parquet,
build/manifest.parquet and data/raw; writes reports/latency.json, reports/robustness.json and reports/robustness.csv.
These name the files that they are about, and no page shows them for another one. They are no outputs of DVC: figures of
speed are another every time, and nothing is made from any of them.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.config import Params
from regraft.core.errors import Damaged, RegraftError
from regraft.core.files import finite, read_json, sha256_of, write_json
from regraft.export import latency, robustness
from regraft.export.finishing import write_keras
from regraft.export.latency import Contestant, Photos, at_size, contestants_of
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.elsewhere import elsewhere_of
from regraft.photos.groups import groups_of
from regraft.photos.images import Threads
from regraft.photos.left_out import unseen
from regraft.photos.manifest import read_manifest
from regraft.photos.sample import JUDGED, sample_of
from regraft.serving.shipped_model import ShippedModel
from tasks.progress import Progress

PHOTO_SIZE = (640, 480)  # width and height of the photo at which answers are timed
REPEATS = 200  # answers to one photo that are timed, with one thread and with all
ROBUSTNESS_PHOTOS = 200  # test photos that are damaged
ROBUSTNESS_SIDE = 448  # pixels of their shorter side, at most: larger photos are reduced first, or it takes long
_COMPARED = 16  # photos on which the answers of engines are compared
_COMPARED_SIDE = 640  # pixels of their shorter side, at most


def measure_latency(params: Params, progress: Progress) -> str:
    """Write reports/latency.json, and return where it is."""
    paths = params.paths
    test = _test_photos(params)[0].head(_COMPARED)
    threads = Threads(params.machine.workers, progress("processes"))
    compared = list(threads.map(lambda photo: _reduced(test, photo), test.photos()))
    photos = Photos(at_size(compared[0], *PHOTO_SIZE), compared)
    model, int8 = ShippedModel(paths.onnx), other_in_int8(params)
    with _in_keras(params, model) as keras:
        contestants = contestants_of(paths.onnx, int8, keras)
        found = latency.measure(contestants, photos, repeats=REPEATS, threads=threads)
    about = {"model": model.digest, "int8": int8 and sha256_of(int8)}
    write_json(paths.reports / "latency.json", {"about": about, **finite(found)})
    return f"{paths.reports / 'latency.json'}: how fast {paths.onnx} answers"


def measure_robustness(params: Params, progress: Progress, *, again: bool) -> str:
    """Write reports/robustness.json and its CSV, and return where they are.

    Args:
        params: all settings.
        progress: of photos.
        again: also files of which these very figures are there.
    """
    paths = params.paths
    test, of_images = _test_photos(params)
    photos = test.head(ROBUSTNESS_PHOTOS)
    groups, side = groups_of(photos, read_manifest(paths.manifest)[1]), ROBUSTNESS_SIDE
    path, about = paths.reports / "robustness.json", robustness.about(photos, groups, side)
    before = {} if again else _measured_before(path, about)
    files = [paths.onnx, *([int8] if (int8 := other_in_int8(params)) else [])]
    figures, rows = [], {}
    for file in files:
        model = ShippedModel(file)
        if (known := before.get(model.digest)) is None:
            threads = Threads(params.machine.workers, progress(f"photos through {file.name}"))
            found, same = robustness.measure(model, photos, groups, side=side, threads=threads)
            known = robustness.as_report(found, photos, groups, same_as_raw=same, side=side)
        figures.append({**known, "of_images": of_images, "name": file.name, "sha256": model.digest})
        rows[file.name] = known["rows"]
    if all(before.get(each["sha256"]) == each for each in figures):
        return f"{path} is about these files and photos already; --again measures them once more"
    write_json(path, {"about": about, "files": finite(figures)})
    robustness.write_rows(paths.reports / "robustness.csv", rows)
    count = f"{len(photos)} of {of_images:,}" if len(photos) < of_images else len(photos)
    return f"{path}: how accurate {paths.onnx} stays on {count} test photos with damage of six kinds"


def other_in_int8(params: Params) -> Path | None:
    """Return the int8 file; None if there is none, or where it is the file to ship once more."""
    path = params.paths.onnx_int8
    return path if path.exists() and sha256_of(path) != sha256_of(params.paths.onnx) else None


def _test_photos(params: Params) -> tuple[Dataset, int]:
    """Return the test photos that `evaluate` asks about too, and how many the split has."""
    paths = params.paths
    everything = read_dataset(paths.dataset, paths.raw, elsewhere_of(params)).of("test")
    test = unseen(sample_of(everything, JUDGED), paths.left_out)
    if not len(test):
        raise RegraftError(
            f"{paths.dataset} has no test photos to measure with. Give the split `test` some (preprocess.test_share)."
        )
    return test, len(everything)


def _reduced(photos: Dataset, photo: Any) -> np.ndarray:
    with photos.opened(photo) as rgb:
        return robustness.reduced(rgb, _COMPARED_SIDE)


def _measured_before(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of files by their digests, if they are about the same photos, measured in the same way."""
    try:
        report = read_json(path, "about", "files")
        return {each["sha256"]: each for each in report["files"]} if report["about"] == about else {}
    except (FileNotFoundError, Damaged, KeyError, TypeError):
        return {}


@contextmanager
def _in_keras(params: Params, model: ShippedModel) -> Iterator[Contestant]:
    """Yield the network in Keras' own format, or why there is none."""
    with tempfile.TemporaryDirectory(prefix="regraft-keras-") as folder:
        path, problem, more = Path(folder, "model.keras"), "", {}
        try:
            write_keras(path, params.backbone, network=params.paths.model, onnx=params.paths.onnx)
            preprocessing = json.loads(model.metadata["preprocessing"])
            more = {name: preprocessing[name] for name in ("image_size", "crop_fraction")}
        except (RegraftError, FileNotFoundError) as error:
            problem = f"the network is not there in Keras: {error}"
        yield Contestant("Keras", "keras", path, more, problem)
