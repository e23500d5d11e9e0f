"""A shipped file: loaded, checked, and asked about photos. What it says of itself, in its metadata, is all it needs."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states

from regraft.errors import RegraftError
from regraft.files import open_regular
from regraft.serving.promise import NoPromise, Promise, read_no_promise, read_promise

NOVEL_ABOVE = "novelty_above"  # in the metadata: more novel than this were 1 in 100 val photos
# What ONNX Runtime makes of a file that is no model, or of one that it cannot run.
_REFUSED = (
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.InvalidProtobuf,
    states.NotImplemented,
    states.RuntimeException,
)
_LARGE = 60_000_000  # bytes of a photo of 20 megapixels; smaller ones are slower if memory is given back after each


@dataclass(frozen=True, slots=True)
class Answer:
    """What a file says of one photo."""

    probabilities: np.ndarray  # float32, shape (num_classes,), in the order of `class_names`
    novelty: float | None  # 1 - cosine to the nearest class prototype, 0 to 2; None of a file without that output


class ShippedModel:
    """A model.onnx that Regraft exported, of this version or an earlier one."""

    def __init__(self, path: Path) -> None:
        """Load a file.

        Args:
            path: of model.onnx.

        Raises:
            RegraftError: there is no such file, or it is not a model that Regraft exported.
        """
        try:
            with open_regular(path) as file:
                contents = file.read()
            self.digest = hashlib.sha256(contents).hexdigest()
            self.session = start_session(contents)
            self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
            self.class_names: list[str] = json.loads(self.metadata["class_names"])
            self.promise: Promise | None = read_promise(self.metadata)
            self.no_promise: NoPromise | None = read_no_promise(self.metadata)
            self.novel_above = _number(self.metadata, NOVEL_ABOVE)
            self._outputs = [output.name for output in self.session.get_outputs()]
            self._check()
            self._read_more(contents)
        except FileNotFoundError:
            raise RegraftError(
                f"{path} does not exist. Run the pipeline first: `make retrain` or `dvc repro`."
            ) from None
        except OSError as error:
            raise RegraftError(
                f"{path} cannot be read ({error.strerror}). Name a model.onnx that you may read."
            ) from None
        except (KeyError, RecursionError, TypeError, ValueError, *_REFUSED) as error:
            reason = " ".join(str(error).split())[:200]
            raise RegraftError(f"{path} is not a model exported by Regraft ({reason}). Export it again.") from None

    def _check(self) -> None:
        """Raise ValueError unless photos can go in, and a probability of each class comes out."""
        (image, *others) = self.session.get_inputs()
        if others or (image.name, image.type) != ("image", "tensor(uint8)"):
            raise ValueError(f"expected one input, image of uint8, found {image.name} of {image.type}")
        if "probabilities" not in self._outputs:
            raise ValueError(f"expected an output probabilities, found {', '.join(self._outputs)}")
        if not isinstance(self.class_names, list) or not all(isinstance(name, str) for name in self.class_names):
            raise TypeError("class_names must be a list of names")
        shape = self.session.get_outputs()[self._outputs.index("probabilities")].shape
        if isinstance(classes := shape[-1] if shape else 0, int) and classes != len(self.class_names):
            raise ValueError(f"expected {classes} class_names, found {len(self.class_names)}")

    def _read_more(self, contents: bytes) -> None:
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
        """
        return run_session(self.session, photo, ["probabilities"])[0]

    def ask(self, photo: np.ndarray) -> Answer:
        """Return all that the file says of a photo, as of `probabilities`."""
        if not self.has_novelty:
            return Answer(self.probabilities(photo), None)
        probabilities, novelty = run_session(self.session, photo, ["probabilities", "novelty"])
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
        """Whether a photo is less like what the file was trained on than 99 of 100 val photos were."""
        return novelty is not None and self.novel_above is not None and novelty > self.novel_above


def start_session(contents: bytes) -> onnxruntime.InferenceSession:
    """Return a session that computes one photo on one thread: photos are taken in parallel instead."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # see regraft/backbones/runners.py
    return onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, photo: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
    """Return what a graph says of one photo: of each output the first row."""
    # What ONNX Runtime took for a large photo (18 bytes a pixel) it would keep for the next one.
    options = onnxruntime.RunOptions()
    if photo.size > _LARGE:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return [np.asarray(found)[0] for found in session.run(outputs, {"image": photo[None]}, options)]


def _number(metadata: dict[str, str], name: str) -> float | None:
    """Return a number that the metadata may have; ValueError if it is none."""
    if name not in metadata:
        return None
    if not math.isfinite(value := float(metadata[name])):
        raise ValueError(f"{name} must be a number")
    return value
