"""The shipped file as the pipeline runs it: whole, or as two parts, the body up to the features and the head.

Where the backbone is frozen, the body is the same to the byte in all files that differ in their head only. What it
computes of a photo is stored under the body's own digest: the next file runs only on photos that no file has seen.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import PIL
from onnx import TensorProto, helper

from regraft.core.errors import InvalidModel, RegraftError
from regraft.core.processor import instruction_set
from regraft.onnx_graphs.parsing import parse_graph
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.photos.preparation import Preparation
from regraft.serving.shipped_model import (
    PHOTO_SECONDS,
    ShippedModel,
    check_answers,
    limited_run,
    run_session,
    start_session,
)
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.shards import Key, key_of

FEATURES = "features"  # the value between the two parts, and an output of the file
BORDER = "frozen_until"  # in the metadata of a file whose body is frozen: FEATURES
_ROWS = 4096  # of the store, written or read at a time
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


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a file for n photos."""

    probabilities: np.ndarray  # float32, shape (n, num_classes)
    novelty: np.ndarray | None  # float32, shape (n,); None of a file without that output

    @classmethod
    def of(cls, rows: np.ndarray, classifier: OnnxClassifier) -> "Answers":
        """Return them from rows, as `OnnxClassifier.row` returns one; InvalidModel if they are no answers."""
        count = len(classifier.class_names)
        answers = cls(rows[:, :count], rows[:, count] if classifier.has_novelty else None)
        check_answers(answers.probabilities, answers.novelty, count)
        return answers


def open_said(store: Path, classifier: OnnxClassifier, *, shared: str | None = None) -> Namespace:
    """Open the part of the store with the answers of this very file, or with the features of its frozen body."""
    facts = {
        "model": classifier.digest,
        "engine": f"onnxruntime {onnxruntime.__version__} (CPU, {instruction_set(integers=True)})",
        "decoder": f"pillow {PIL.__version__}",
    }
    if parts := classifier.frozen_parts:
        facts |= {"model": parts.digest}
        return open_namespace(
            store, "shipped_features", facts, shape=(parts.feature_dim,), dtype="float32", shared=shared
        )
    kind = "answers" if classifier.has_novelty else "probabilities"
    return open_namespace(store, kind, facts, shape=(classifier.row_length,), dtype="float32", shared=shared)


def answers_of(
    classifier: OnnxClassifier,
    dataset: Dataset,
    threads: Threads,
    *,
    stored: Namespace | None,
) -> Answers:
    """Return the answers of a file for a whole data set, read from the raw files.

    Args:
        classifier: the shipped file.
        dataset: the photos.
        threads: that decode and run; told how many photos are done and to do.
        stored: from `open_said`: a photo that this file, or its frozen body, has seen is not run again. None runs the
            whole file on all of them.
    """
    if stored is None or not classifier.frozen_parts:
        rows = _rows_of(dataset, classifier.row, threads, stored)
    else:
        rows = classifier.rows_from_features(features_of(classifier, dataset, threads, stored=stored))
    return Answers.of(rows, classifier)


def probabilities_of(
    classifier: OnnxClassifier, dataset: Dataset, threads: Threads, *, stored: Namespace | None
) -> np.ndarray:
    """Return the probabilities alone, float32, shape (n, num_classes); arguments as of `answers_of`."""
    return answers_of(classifier, dataset, threads, stored=stored).probabilities


def features_of(
    classifier: OnnxClassifier, dataset: Dataset, threads: Threads, *, stored: Namespace | None
) -> np.ndarray:
    """Return the features of a file for photos: float32, shape (n, feature_dim); arguments as above."""
    return _rows_of(dataset, classifier.features, threads, stored)


def _rows_of(
    dataset: Dataset, run: Callable[[np.ndarray], np.ndarray], threads: Threads, stored: Namespace | None
) -> np.ndarray:
    """Return a row per photo in the order of the data set; a file that is there twice is run once."""
    photos = {key_of(photo.source): photo for photo in dataset.photos()}

    def on_photo(key: Key) -> np.ndarray:
        with dataset.opened(photos[key]) as rgb:
            return run(rgb)

    def computed(keys: list[Key]) -> Iterator[np.ndarray]:
        for number, row in enumerate(threads.map(on_photo, keys), 1):
            yield row
            threads.on_progress(number, len(keys))

    keys = list(photos)
    if stored is None:
        rows = dict(zip(keys, computed(keys), strict=True))
    else:
        new, last = stored.missing(keys), time.perf_counter()
        for number, (key, row) in enumerate(zip(new, computed(new), strict=True), 1):
            stored.append([key], row[None], seconds=time.perf_counter() - last)
            if number % _ROWS == 0:
                stored.flush()
            last = time.perf_counter()
        stored.flush()
        parts = [keys[start : start + _ROWS] for start in range(0, len(keys), _ROWS)]
        rows = {key: row for part in parts for key, row in zip(part, stored.read(part), strict=True)}
    return np.stack([rows[key_of(source)] for source in dataset.sources()])
