"""A file whose backbone is frozen: its first part is the same every night, and serves every head."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from regraft.export import finishing
from regraft.export.classifier import (
    BORDER,
    OnnxClassifier,
    answers_of,
    facts_of,
    frozen_digest,
    open_said,
    probabilities_of,
)
from regraft.export.compose import build_classifier, part_to_ship, with_head, write_graph
from regraft.export.finishing import Material, examine, look
from regraft.photos.images import Threads, load_rgb
from regraft.serving.thresholds import Promise
from regraft.training.network_file import Head, HeadSettings, Network

LINEAR = HeadSettings(0, "relu", "adamw", 0.2, 0.1, 0.0, 0.0)


@pytest.fixture(scope="module")
def graph_of(backbone, trunk, preparation):
    """A function that returns the graph to ship of a random head."""

    def make(settings: HeadSettings = LINEAR, *, seed: int = 0, classes: int = 3) -> onnx.ModelProto:
        random, units = np.random.default_rng(seed), settings.hidden_units
        shapes = [(1280, units), units, (units, classes), classes] if units else [(1280, classes), classes]
        head = Head(settings, [random.normal(size=shape).astype(np.float32) / 4 for shape in shapes])
        part = part_to_ship(Network("head", head, {}), backbone, trunk, preparation)
        plain = build_classifier(part, backbone, trunk, preparation, list("abcdef"[:classes]))
        prototypes = random.normal(size=(classes, 1280)).astype(np.float32)
        return with_head(plain, head, prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True))

    return make


@pytest.fixture
def classifier_of(graph_of, tmp_path):
    """The same as a classifier."""

    def make(*args, **kwargs) -> OnnxClassifier:
        write_graph(tmp_path / "model.onnx", graph_of(*args, **kwargs))
        return OnnxClassifier(tmp_path / "model.onnx")

    return make


@pytest.mark.parametrize("settings", [LINEAR, replace(LINEAR, hidden_units=5)])
def test_both_parts_say_to_the_bit_what_the_whole_file_says(classifier_of, real_photos, settings):
    classifier = classifier_of(settings)
    photos = [load_rgb(path) for path in real_photos[:20]]
    features = np.stack([classifier.features(photo) for photo in photos])
    assert np.array_equal(classifier.rows_from_features(features), [classifier.row(photo) for photo in photos])


def test_files_with_other_heads_have_the_same_frozen_part(classifier_of):
    digests = [
        classifier_of(replace(LINEAR, hidden_units=units), seed=seed, classes=classes).frozen_parts.digest
        for units, seed, classes in [(0, 0, 3), (0, 1, 3), (7, 1, 3), (0, 0, 5)]
    ]
    assert len(set(digests)) == 1


def test_a_photo_that_a_file_with_another_head_has_seen_is_not_run_again(classifier_of, dataset, tmp_path):
    def run(classifier: OnnxClassifier, photos) -> tuple[np.ndarray, list[tuple[int, int]]]:
        calls = []
        stored = open_said(tmp_path / "store", classifier)
        return probabilities_of(classifier, photos, Threads(1, lambda *call: calls.append(call)), stored=stored), calls

    run(classifier_of(seed=0), dataset.head(3))
    classifier = classifier_of(seed=1)
    said, calls = run(classifier, dataset.head(5))
    assert calls == [(1, 2), (2, 2)]
    assert np.array_equal(said, probabilities_of(classifier, dataset.head(5), Threads(1), stored=None))


@pytest.fixture
def material(dataset, monkeypatch):
    """The photos, and where the calls of their threads are counted."""
    monkeypatch.setattr(finishing, "IMAGES", 2)
    calls = []
    return Material(dataset, np.ones(len(dataset.of("val")), bool), Threads(1, lambda *call: calls.append(call))), calls


def test_a_new_file_is_asked_as_a_whole_about_some_photos_in_any_case(graph_of, material, tmp_path):
    (photos, calls), path = material, tmp_path / "a.onnx"
    val, some = look(path, graph_of(seed=1), photos, tmp_path / "store")
    assert len(calls) == len(val) + len(some)
    look(path, graph_of(), photos, tmp_path / "store")
    assert len(calls) == len(val) + len(some)  # the store has them
    graph, said = examine(path, graph_of(), photos, val)
    assert len(calls) == len(val) + len(some) + 2
    whole = answers_of(OnnxClassifier(path), photos.val, Threads(1), stored=None)
    assert np.array_equal(said.probabilities, whole.probabilities)
    assert said.novelty is not None
    assert whole.novelty is not None
    assert np.array_equal(said.novelty, whole.novelty)
    assert graph == graph_of()


def test_where_the_parts_say_anything_else_the_file_is_put_together_for_good(graph_of, material, tmp_path, monkeypatch):
    (photos, _), path = material, tmp_path / "a.onnx"
    val, _ = look(path, graph_of(), photos, tmp_path / "store")
    exact = OnnxClassifier.rows_from_features
    monkeypatch.setattr(OnnxClassifier, "rows_from_features", lambda *args: exact(*args) * np.float32(1 + 2**-22))
    graph, said = examine(path, graph_of(), photos, val)
    classifier = OnnxClassifier(path)
    assert classifier.frozen_parts is None
    assert BORDER not in facts_of(graph)
    assert np.array_equal(said.probabilities, probabilities_of(classifier, photos.val, Threads(1), stored=None))


def test_the_digest_of_the_frozen_part_is_found_in_a_file_with_a_promise(graph_of, classifier_of, tmp_path):
    write_graph(tmp_path / "promise.onnx", graph_of(seed=1), Promise(0.5, 0.9, 0.95).as_metadata())
    assert frozen_digest(tmp_path / "promise.onnx") == classifier_of().frozen_parts.digest
    (tmp_path / "other.onnx").write_bytes(b"no model")
    assert frozen_digest(tmp_path / "other.onnx") is None
