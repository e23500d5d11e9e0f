"""The shipped file as the pipeline runs it: whole, or as two parts, the body up to the features and the head.

Where the backbone is frozen, the body is the same to the byte in all files that differ in their head only. What it
computes of a photo is stored under the body's own digest and serves all of these files.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from regraft.core.errors import InvalidModel, RegraftError
from regraft.onnx_graphs.parsing import parse_graph
from regraft.photos.preparation import Preparation
from regraft.serving.shipped_model import PHOTO_SECONDS, ShippedModel, limited_run, run_session, start_session

FEATURES = "features"  # the value between the two parts, and an output of the file
BORDER = "frozen_until"  # in the metadata of a file whose body is frozen: FEATURES
_ROWS_PER_SECOND = 100  # that a head computes at least; mostly it computes thousands


@dataclass(frozen=True)
class TwoParts:
    """Both parts as files of their own."""

    body: bytes  # `image`, uint8 RGB, to `features`, float32 of shape (batch, feature_dim)
    head: bytes  # `features` to all outputs of the file but this one
    feature_dim: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the body."""
        return hashlib.sha256(self.body).hexdigest()


def in_two_parts(model: onnx.ModelProto) -> TwoParts:
    """Return the parts of a file; ValueError if they do not meet in FEATURES, as in files of other programs."""
    nodes = list(model.graph.node)
    outputs = {output.name: output for output in model.graph.output}
    end = next((number for number, node in enumerate(nodes, 1) if FEATURES in node.output), None)
    if end is None or FEATURES not in outputs:
        raise ValueError(f"expected an output {FEATURES}, found {', '.join(outputs)}")
    tensors = {tensor.name for tensor in model.graph.initializer}
    made = {name for node in nodes[end:] for name in node.output}
    taken = {name for node in nodes[end:] for name in node.input} - made - tensors
    if taken != {FEATURES}:
        raise ValueError(f"expected a head that takes {FEATURES} alone, found one that takes {sorted(taken)}")
    feature_dim = outputs.pop(FEATURES).type.tensor_type.shape.dim[1].dim_value
    value = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", feature_dim])

    def part(nodes: list[onnx.NodeProto], given: list[onnx.ValueInfoProto], made: list[onnx.ValueInfoProto]) -> bytes:
        used = {name for node in nodes for name in node.input}
        weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
        graph = helper.make_graph(nodes, model.graph.name, given, made, weights)
        return as_bytes(helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version))

    body = part(nodes[:end], list(model.graph.input), [value])
    return TwoParts(body, part(nodes[end:], [value], list(outputs.values())), feature_dim)


def facts_of(model: onnx.ModelProto) -> Mapping[str, str]:
    """Return the metadata of a file."""
    return {entry.key: entry.value for entry in model.metadata_props}


def with_facts(model: onnx.ModelProto, facts: Mapping[str, str | None]) -> onnx.ModelProto:
    """Return the same graph with more or other metadata; a value of None removes an entry."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    merged = {name: value for name, value in {**facts_of(model), **facts}.items() if value is not None}
    helper.set_model_props(copy, dict(sorted(merged.items())))
    return copy


def as_bytes(model: onnx.ModelProto) -> bytes:
    """Return a graph as a file: the same bytes for the same graph."""
    return model.SerializeToString(deterministic=True)


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
        """The preprocessing in the file; RegraftError where its metadata lacks it."""
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
        """Return the answer for a photo as one row: the probabilities, and the novelty if the file has it."""
        answer = self.ask(photo)
        novelty = [] if answer.novelty is None else [np.float32(answer.novelty)]
        return np.append(answer.probabilities, np.array(novelty, np.float32))

    def features(self, photo: np.ndarray) -> np.ndarray:
        """Return what the body computes of a photo: float32, shape (feature_dim,)."""
        return run_session(self._body, photo, [FEATURES])[0]

    def rows_from_features(self, features: np.ndarray) -> np.ndarray:
        """Return what the head computes of features: float32, shape (n, row_length)."""
        # One by one: a product of one row is added up in another order than one of many.
        names = ["probabilities", "novelty"] if self.has_novelty else ["probabilities"]
        with limited_run(PHOTO_SECONDS + len(features) / _ROWS_PER_SECOND) as options:
            said = [self._head.run(names, {FEATURES: row[None]}, options) for row in features]
        rows = [np.hstack(list(map(np.ravel, each))) for each in said]
        return np.stack(rows) if rows else np.empty((0, self.row_length), np.float32)

    @cached_property
    def _body(self) -> onnxruntime.InferenceSession:
        return start_session(self.parts.body)

    @cached_property
    def _head(self) -> onnxruntime.InferenceSession:
        return start_session(self.parts.head)


def frozen_digest(path: Path) -> str | None:
    """Return the SHA-256 of the frozen body of a file; None of one that has none, or cannot be read."""
    try:
        graph = parse_graph(path.read_bytes())
        return in_two_parts(graph).digest if BORDER in facts_of(graph) else None
    except (InvalidModel, OSError, ValueError):
        return None
