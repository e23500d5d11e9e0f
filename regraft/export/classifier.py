"""The shipped file as the pipeline runs it: where only the head was trained, its frozen part is run alone as well."""

from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from regraft.errors import RegraftError
from regraft.export.two_parts import BORDER, TwoParts, in_two_parts
from regraft.serving.shipped_model import ShippedModel, run_session, start_session


class OnnxClassifier(ShippedModel):
    """A model.onnx that Regraft exported, and the two parts that it may have."""

    parts: TwoParts | None

    def _read_more(self, contents: bytes) -> None:
        self.parts = in_two_parts(onnx.load_from_string(contents)) if BORDER in self.metadata else None

    def features(self, photo: np.ndarray) -> np.ndarray:
        """Return what the first of two parts says of a photo: float32, shape (feature_dim,)."""
        return run_session(self._frozen, photo, [self._frozen.get_outputs()[0].name])[0]

    def from_features(self, features: np.ndarray) -> np.ndarray:
        """Return what the second of two parts makes of it, for each photo: float32, shape (n, num_classes)."""
        # One by one: a product of one row is added up in another order than one of many.
        rows = [self._head.run(None, {self._head.get_inputs()[0].name: row[None]})[0] for row in features]
        return np.concatenate([np.empty((0, len(self.class_names)), np.float32), *map(np.asarray, rows)])

    @cached_property
    def _frozen(self) -> onnxruntime.InferenceSession:
        assert self.parts is not None
        return start_session(self.parts.frozen)

    @cached_property
    def _head(self) -> onnxruntime.InferenceSession:
        assert self.parts is not None
        return start_session(self.parts.head)


def frozen_digest(path: Path) -> str | None:
    """Return the SHA-256 of the frozen part of a file; None of one that is not in two parts, or cannot be loaded."""
    try:
        parts = OnnxClassifier(path).parts
    except RegraftError:
        return None
    return parts and parts.digest
