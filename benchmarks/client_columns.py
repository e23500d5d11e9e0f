"""The clients that `benchmarks.clients` compares: every way from the file of a photo to what model.onnx says of it."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from regraft.photos.images import load_rgb
from regraft.serving.photo_list import Listed
from regraft.serving.predicting import choose_predictor
from regraft.serving.shipped_model import ShippedModel

ROOT = Path(__file__).parents[1]
REFERENCE = "load_rgb"
_SECONDS = 60  # that a command may take for a photo
_LINE = re.compile(r"(\d\.\d+)  (.+)")
# The probabilities of a photo, in the order of class_names, NaN of those it does not say; it raises what the client
# does, with a reason.
Client = Callable[[Path], np.ndarray]


def clients_of(model_path: Path, commands: dict[str, str]) -> dict[str, Client]:
    """Return all clients that can run here, by name; the first one is the reference.

    Args:
        model_path: of model.onnx.
        commands: further ones: a command line that is given the paths of the model and of a photo. It prints lines as
            docs/classify.py does, the probability and the name of each of the best classes. Or its last line is JSON:
            probabilities by class name, or {"error": "why the photo cannot be read"}.
    """
    model = ShippedModel(model_path)
    clients: dict[str, Client] = {
        REFERENCE: lambda photo: model.probabilities(load_rgb(photo)),
        "regraft predict": _predict(model),
        "docs/classify.py": lambda photo: model.probabilities(_module(ROOT / "docs" / "classify.py").read(str(photo))),
        "plain Pillow": lambda photo: model.probabilities(_plain(photo)),
    }
    if importlib.util.find_spec("cv2"):
        clients["OpenCV"] = lambda photo: model.probabilities(_opencv(photo))
    if importlib.util.find_spec("onnxruntime_extensions"):
        commands = {"from bytes": f"{shlex.quote(sys.executable)} -m benchmarks.from_bytes"} | commands
    return clients | {name: _command(line, model_path, model.class_names) for name, line in commands.items()}


def _predict(model: ShippedModel) -> Client:
    predictor = choose_predictor(model, top=len(model.class_names))

    def ask(photo: Path) -> np.ndarray:
        row = predictor.row(Listed(str(photo)))
        if row is None or row.error:
            raise ValueError(row.error if row else "skipped")
        return np.array([dict(row.top)[name] for name in model.class_names])

    return ask


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _plain(photo: Path) -> np.ndarray:
    """What most examples on the web do."""
    with Image.open(photo) as image:
        return np.asarray(image.convert("RGB"))


def _opencv(photo: Path) -> np.ndarray:
    import cv2  # pyright: ignore[reportMissingImports] - where somebody has installed it

    pixels = cv2.imread(str(photo))  # it turns a JPEG upright, drops alpha and makes 8 bits of 16
    if pixels is None:
        raise ValueError("imread returned None")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _command(line: str, model_path: Path, class_names: list[str]) -> Client:
    def ask(photo: Path) -> np.ndarray:
        command = [*shlex.split(line), str(model_path), str(photo)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
        if done.returncode:
            raise ValueError(f"the process ended: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}")
        lines = done.stdout.splitlines()
        said = {found[2]: float(found[1]) for line in lines if (found := _LINE.fullmatch(line))}
        said = said or json.loads(lines[-1])
        if "error" in said:
            raise ValueError(said["error"])
        return np.array([said.get(name, np.nan) for name in class_names])

    return ask
