"""The shipped file as the pipeline runs it: what comes before the head can be run alone, and the head on features."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime

from regraft.core.errors import InvalidModel, RegraftError
from regraft.export.two_parts import BORDER, TwoParts, facts_of, in_two_parts
from regraft.onnx_graphs.parsing import parse_graph
from regraft.photos.preparation import Preparation
from regraft.serving.shipped_model import PHOTO_SECONDS, ShippedModel, limited_run, run_session, start_session

_ROWS_PER_SECOND = 100  # that a head makes of features at least: it mostly makes thousands


class OnnxClassifier(ShippedModel):
    """A model.onnx that Regraft exported."""

    frozen_parts: TwoParts | None  # of a file whose backbone is frozen, which says so in its metadata

    def __init__(self, path: Path, *, is_own: bool = True) -> None:
        """Load a file, as `ShippedModel` does; mostly it is one that this project made."""
        super().__init__(path, is_own=is_own)

    def _read_more(self) -> None:
        self.frozen_parts = self.parts if BORDER in self.metadata else None

    @cached_property
    def parts(self) -> TwoParts:
        """The file in two; ValueError of one that has no output `features`, as those of earlier versions."""
        return in_two_parts(parse_graph(self.contents))

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
        with limited_run(PHOTO_SECONDS + len(features) / _ROWS_PER_SECOND) as options:
            said = [self._head.run(names, {"features": row[None]}, options) for row in features]
        rows = [np.hstack(list(map(np.ravel, each))) for each in said]
        return np.stack(rows) if rows else np.empty((0, self.row_length), np.float32)

    @cached_property
    def _body(self) -> onnxruntime.InferenceSession:
        return start_session(self.parts.body)

    @cached_property
    def _head(self) -> onnxruntime.InferenceSession:
        return start_session(self.parts.head)


def frozen_digest(path: Path) -> str | None:
    """Return the SHA-256 of the frozen part of a file; None of one that has none, or cannot be read."""
    try:
        graph = parse_graph(path.read_bytes())
        return in_two_parts(graph).digest if BORDER in facts_of(graph) else None
    except (InvalidModel, OSError, ValueError):
        return None
