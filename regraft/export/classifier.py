"""The shipped file in use: raw photos in, probabilities out, with ONNX Runtime and what the file says of itself."""

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf

from regraft.errors import RegraftError
from regraft.export.promise import Promise, read_promise
from regraft.export.two_parts import BORDER, in_two_parts

_LARGE = 60_000_000  # bytes of a photo of 20 megapixels; smaller ones are slower if memory is given back after each


class OnnxClassifier:
    """A model.onnx that Regraft exported."""

    def __init__(self, path: Path) -> None:
        """Load a file.

        Args:
            path: of model.onnx.

        Raises:
            RegraftError: there is no such file, or it is not a model that Regraft exported.
        """
        try:
            contents = path.read_bytes()
            self.digest = hashlib.sha256(contents).hexdigest()
            self._session = _session(contents)
            self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
            self.class_names: list[str] = json.loads(self.metadata["class_names"])
            self.promise: Promise | None = read_promise(self.metadata)
            self.parts = in_two_parts(onnx.load_from_string(contents)) if BORDER in self.metadata else None
        except FileNotFoundError:
            raise RegraftError(
                f"{path} does not exist. Run the pipeline first: `make retrain` or `dvc repro`."
            ) from None
        except (
            KeyError,
            RecursionError,
            TypeError,
            ValueError,
            Fail,
            InvalidArgument,
            InvalidGraph,
            InvalidProtobuf,
        ) as error:
            reason = " ".join(str(error).split())[:200]
            raise RegraftError(f"{path} is not a model exported by Regraft ({reason}). Export it again.") from None

    def probabilities(self, photo: np.ndarray) -> np.ndarray:
        """Return one probability per class.

        Args:
            photo: uint8 RGB, shape (height, width, 3), any size, upright.

        Returns:
            float32, shape (num_classes,), in the order of `class_names`.
        """
        return _run(self._session, photo)

    def features(self, photo: np.ndarray) -> np.ndarray:
        """Return what the first of two parts says of a photo: float32, shape (feature_dim,)."""
        return _run(self._frozen, photo)

    def from_features(self, features: np.ndarray) -> np.ndarray:
        """Return what the second of two parts makes of it, for each photo: float32, shape (n, num_classes)."""
        # One by one: a product of one row is added up in another order than one of many.
        rows = [self._head.run(None, {self._head.get_inputs()[0].name: row[None]})[0] for row in features]
        return np.concatenate([np.empty((0, len(self.class_names)), np.float32), *map(np.asarray, rows)])

    @cached_property
    def _frozen(self) -> onnxruntime.InferenceSession:
        assert self.parts is not None
        return _session(self.parts.frozen)

    @cached_property
    def _head(self) -> onnxruntime.InferenceSession:
        assert self.parts is not None
        return _session(self.parts.head)

    def answer(self, photo: np.ndarray) -> str | None:
        """Return the name of the photo's class, or None where the file's promise says that it had better abstain."""
        probabilities = self.probabilities(photo)
        if self.promise and probabilities.max() < self.promise.abstain_below:
            return None
        return self.class_names[int(probabilities.argmax())]


def frozen_digest(path: Path) -> str | None:
    """Return the SHA-256 of the frozen part of a file; None of one that is not in two parts, or cannot be loaded."""
    try:
        parts = OnnxClassifier(path).parts
    except RegraftError:
        return None
    return parts and parts.digest


def _session(contents: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # Photos are taken in parallel instead, each by one thread: see regraft/backbones/runners.py.
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, photo: np.ndarray) -> np.ndarray:
    """Return what a graph with one output says of one photo."""
    # What ONNX Runtime took for a large photo (18 bytes a pixel) it would keep for the next one.
    options = onnxruntime.RunOptions()
    if photo.size > _LARGE:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    (outputs,) = session.run(None, {"image": photo[None]}, options)
    return np.asarray(outputs)[0]
