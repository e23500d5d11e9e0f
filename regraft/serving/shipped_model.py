"""A shipped file: loaded, checked, and asked about photos. What it says of itself, in its metadata, is all it needs."""

import hashlib
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states

from regraft.core.errors import InvalidModel, RegraftError
from regraft.core.files import open_regular
from regraft.serving.model_probe import probe
from regraft.serving.thresholds import ABOVE, PHOTOS, SHARE, NoPromise, Promise, read_no_promise, read_promise

# What ONNX Runtime makes of a file that is no model, or of one that it cannot run.
REFUSED = (
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.InvalidProtobuf,
    states.NotImplemented,
    states.RuntimeException,
)
# Probabilities have 7 digits, and so has each of the thousands of terms of the sum that they were divided by.
SUM_TOLERANCE, _ROUNDED = 1e-3, 1e-6  # how far their sum may be from 1, and one of them above it
PHOTO_SECONDS = 60.0  # that a model may take for one photo; 120 megapixels take 2 to 5
_SILENT = 4  # what ONNX Runtime logs quotes names from the file as they are, and what it raises says the same
_LARGE = 60_000_000  # bytes of a photo of 20 megapixels; smaller ones are slower if memory is given back after each


@dataclass(frozen=True, slots=True)
class Answer:
    """What a file says of one photo."""

    probabilities: np.ndarray  # float32, shape (num_classes,), in the order of `class_names`
    novelty: float | None  # 1 - cosine to the nearest class prototype, 0 to 2; None of a file without that output


class ShippedModel:
    """A model.onnx that Regraft exported, of this version or an earlier one."""

    contents: bytes  # of the file

    def __init__(self, path: Path, *, is_own: bool = False) -> None:
        """Load a file.

        Args:
            path: of model.onnx.
            is_own: this run made it. Any other is tried in a process of its own first, which takes half a second.

        Raises:
            RegraftError: there is no such file, or it is not a model that Regraft exported, or it gives no answers.
        """
        try:
            with open_regular(path) as file:
                self.contents = file.read()
            self.digest = hashlib.sha256(self.contents).hexdigest()
            if not is_own:
                probe(self.contents)
            self.session = start_session(self.contents)
            self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
            self.class_names: list[str] = json.loads(self.metadata["class_names"])
            self.promise: Promise | None = read_promise(self.metadata)
            self.no_promise: NoPromise | None = read_no_promise(self.metadata)
            self.novel_above = _number(self.metadata, ABOVE)
            # Of ordinary photos, and how many say so; files of earlier versions do not.
            self.novel_share = _number(self.metadata, SHARE, least=1e-9, most=1)
            self.novel_photos = _number(self.metadata, PHOTOS, least=1, most=1e9)
            self._outputs = [output.name for output in self.session.get_outputs()]
            self._check()
            self._read_more()
            if not is_own:
                self.ask(np.zeros((240, 320, 3), np.uint8))
        except FileNotFoundError:
            raise RegraftError(
                f"{path} does not exist. Run the pipeline first: `make retrain` or `dvc repro`."
            ) from None
        except OSError as error:
            raise RegraftError(
                f"{path} cannot be read ({error.strerror}). Name a model.onnx that you may read."
            ) from None
        except (InvalidModel, KeyError, RecursionError, TypeError, ValueError, *REFUSED) as error:
            reason = " ".join(str(error).split())[:200]
            raise RegraftError(f"{path} is not a model exported by Regraft ({reason}). Export it again.") from None

    def _check(self) -> None:
        """Raise ValueError unless photos can go in, and a probability of each class comes out."""
        (image, *others) = self.session.get_inputs()
        if others or (image.name, image.type) != ("image", "tensor(uint8)"):
            raise ValueError(f"expected one input, image of uint8, found {image.name} of {image.type}")
        if "probabilities" not in self._outputs:
            raise ValueError(f"expected an output probabilities, found {', '.join(self._outputs)}")
        for output in self.session.get_outputs():
            if output.name in ("probabilities", "novelty") and output.type != "tensor(float)":
                raise ValueError(f"expected {output.name} as float32, found {output.type}")
        names = self.class_names
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise TypeError("class_names must be a list of names")
        if not names or len(set(names)) < len(names):
            raise ValueError(f"class_names must be different names, found {str(names)[:100]}")
        shape = self.session.get_outputs()[self._outputs.index("probabilities")].shape
        if isinstance(classes := shape[-1] if shape else 0, int) and classes != len(names):
            raise ValueError(f"expected {classes} class_names, found {len(names)}")

    def _read_more(self) -> None:
        """What a class that builds on this one reads of the file; what it raises is a file that is none of ours."""

    @property
    def has_novelty(self) -> bool:
        """Whether the file has the output `novelty`: earlier versions wrote none."""
        return "novelty" in self._outputs

    def probabilities(self, photo: np.ndarray) -> np.ndarray:
        """Return one probability per class.

        Args:
            photo: uint8 RGB, shape (height, width, 3), any size, upright.

        Returns:
            float32, shape (num_classes,), in the order of `class_names`.

        Raises:
            InvalidModel: they are no probabilities, or it takes too long.
        """
        (found,) = run_session(self.session, photo, ["probabilities"])
        check_answers(found[None], None, len(self.class_names))
        return found

    def ask(self, photo: np.ndarray) -> Answer:
        """Return all that the file says of a photo, as of `probabilities`."""
        if not self.has_novelty:
            return Answer(self.probabilities(photo), None)
        probabilities, novelty = run_session(self.session, photo, ["probabilities", "novelty"])
        check_answers(probabilities[None], novelty[None], len(self.class_names))
        return Answer(probabilities, float(novelty))

    def answer(self, photo: np.ndarray) -> str | None:
        """Return the name of the photo's class, or None where the file's promise says that it had better abstain."""
        return self.class_of(self.probabilities(photo))

    def class_of(self, probabilities: np.ndarray) -> str | None:
        """Return what `answer` makes of probabilities, float32, shape (num_classes,)."""
        if self.promise and probabilities.max() < self.promise.abstain_below:
            return None
        return self.class_names[int(probabilities.argmax())]

    def is_novel(self, novelty: float | None) -> bool:
        """Whether a photo is less like what the file was trained on than nearly all val photos were."""
        return novelty is not None and self.novel_above is not None and novelty > self.novel_above


def start_session(contents: bytes, *, is_optimised: bool = True) -> onnxruntime.InferenceSession:
    """Return a session that computes one photo on one thread: photos are taken in parallel instead."""
    options = onnxruntime.SessionOptions()
    if not is_optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1  # see regraft/backbones/trunk.py
    options.log_severity_level = _SILENT
    return onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, photo: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
    """Return what a graph says of one photo: of each output the first row."""
    with limited_run(PHOTO_SECONDS) as options:
        # What ONNX Runtime took for a large photo (18 bytes a pixel) it would keep for the next one.
        if photo.size > _LARGE:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        found = list(map(np.asarray, session.run(outputs, {"image": photo[None]}, options)))
    if shapes := [each.shape for each in found if each.shape[:1] != (1,)]:
        raise InvalidModel(f"of one photo the model gives an output of shape {shapes[0]}. Use another model.")
    return [each[0] for each in found]


@contextmanager
def limited_run(seconds: float) -> Iterator[onnxruntime.RunOptions]:
    """Yield options of a run that ends when it takes too long: between two operators, also within a Loop.

    Raises:
        InvalidModel: it did.
    """
    options = onnxruntime.RunOptions()
    options.log_severity_level = _SILENT
    timer = threading.Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    except states.Fail:
        if options.terminate:
            raise InvalidModel(f"the model takes longer than {seconds:g} s for one photo. Use another model.") from None
        raise
    finally:
        timer.cancel()


def check_answers(probabilities: np.ndarray, novelty: np.ndarray | None, num_classes: int) -> None:
    """Raise InvalidModel unless rows are probabilities of so many classes, and novelty is a number for each of them."""
    if probabilities.dtype != np.float32 or probabilities.ndim != 2 or probabilities.shape[1] != num_classes:
        found = f"{probabilities.dtype} of shape {probabilities.shape[1:]}"
        raise InvalidModel(
            f"expected float32 probabilities of {num_classes} classes, found {found}. Use another model."
        )
    sums = probabilities.sum(axis=1, dtype=np.float64)
    is_share = (probabilities >= 0) & (probabilities <= 1 + _ROUNDED)  # what is no number is none of both
    is_right = is_share.all(axis=1) & (np.abs(sums - 1) <= SUM_TOLERANCE)
    if not is_right.all():
        wrong = probabilities[np.argmin(is_right)]
        raise InvalidModel(
            f"some probability is not from 0 to 1, or their sum is not 1: found {_shown(wrong)} with sum "
            f"{wrong.sum():.6g}. Use another model."
        )
    if novelty is not None and not (novelty.shape == probabilities.shape[:1] and np.isfinite(novelty).all()):
        raise InvalidModel("expected one number as the novelty of a photo, found none or several. Use another model.")


def _shown(values: np.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in values[:5]) + (", ..." if len(values) > 5 else "")


def _number(metadata: dict[str, str], name: str, *, least: float = -math.inf, most: float = math.inf) -> float | None:
    """Return a number that the metadata may have; ValueError if it is none, or out of its range."""
    if name not in metadata:
        return None
    if not (math.isfinite(value := float(metadata[name])) and least <= value <= most):
        raise ValueError(f"{name} must be a number" + (f" from {least:g} to {most:g}" if least > -math.inf else ""))
    return value
