"""The shipped file as the pipeline runs it: what comes before the head can be run alone, and the head on features."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from regraft.errors import RegraftError
from regraft.export.two_parts import BORDER, TwoParts, in_two_parts
from regraft.photos.preparation import Preparation
from regraft.serving.shipped_model import ShippedModel, run_session, start_session


class OnnxClassifier(ShippedModel):
    """A model.onnx that Regraft exported."""

    contents: bytes  # of the file
    frozen_parts: TwoParts | None  # of a file whose backbone is frozen, which says so in its metadata

    def _read_more(self, contents: bytes) -> None:
        self.contents = contents
        self.frozen_parts = self.parts if BORDER in self.metadata else None

    @cached_property
    def parts(self) -> TwoParts:
        """The file in two; ValueError of one that has no output `features`, as those of earlier versions."""
        return in_two_parts(onnx.load_from_string(self.contents))

    @cached_property
    def preparation(self) -> Preparation:
        """What the file does with a photo first; RegraftError where it does not say."""
        try:
            facts = json.loads(self.metadata["preprocessing"])
            return Preparation(facts["image_size"], facts["crop_fraction"])
        except (KeyError, TypeError, ValueError):
            raise RegraftError("the file does not say how it prepares photos. Export it again.") from None

    def batch(self, photos: np.ndarray) -> np.ndarray:
        """Return the probabilities of photos of one size at a time: uint8, (n, height, width, 3), to (n, classes)."""
        return np.asarray(self.session.run(["probabilities"], {"image": photos})[0])

    @property
    def row_length(self) -> int:
        """How many numbers `row` returns."""
        return len(self.class_names) + self.has_novelty

    def row(self, photo: np.ndarray) -> np.ndarray:
        """Return all that the file says of a photo as one row: the probabilities, and the novelty if it has one."""
        answer = self.ask(photo)
        return (
            answer.probabilities
            if answer.novelty is None
            else np.append(answer.probabilities, np.float32(answer.novelty))
        )

    def features(self, photo: np.ndarray) -> np.ndarray:
        """Return what the first of two parts says of a photo: float32, shape (feature_dim,)."""
        return run_session(self._body, photo, ["features"])[0]

    def rows_from_features(self, features: np.ndarray) -> np.ndarray:
        """Return what the second of two parts makes of features: float32, shape (n, row_length)."""
        # One by one: a product of one row is added up in another order than one of many.
        names = ["probabilities", "novelty"] if self.has_novelty else ["probabilities"]
        rows = [np.hstack(list(map(np.ravel, self._head.run(names, {"features": row[None]})))) for row in features]
        return np.stack(rows) if rows else np.empty((0, self.row_length), np.float32)

    @cached_property
    def _body(self) -> onnxruntime.InferenceSession:
        return start_session(self.parts.body)

    @cached_property
    def _head(self) -> onnxruntime.InferenceSession:
        return start_session(self.parts.head)


def frozen_digest(path: Path) -> str | None:
    """Return the SHA-256 of the frozen part of a file; None of one that has none, or cannot be loaded."""
    try:
        parts = OnnxClassifier(path).frozen_parts
    except RegraftError:
        return None
    return parts and parts.digest
