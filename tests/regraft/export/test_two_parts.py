"""A file whose backbone is frozen: its first part is the same every night, and serves every head."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from regraft.errors import RegraftError
from regraft.export.classifier import OnnxClassifier, frozen_digest
from regraft.export.compose import build_classifier, write_graph
from regraft.export.scoring import examine, open_said, probabilities_of
from regraft.export.trained_part import part_to_ship
from regraft.export.two_parts import BORDER, facts_of
from regraft.photos.images import Threads, load_rgb
from regraft.serving.promise import Promise
from regraft.training.batched_heads import HeadSettings
from regraft.training.network_file import Head, Network

LINEAR = HeadSettings(0, "relu", "adamw", 0.2, 0.1, 0.0, 0.0)


@pytest.fixture(scope="module")
def graph_of(backbone, trunk, preparation):
    """A function that returns the graph to ship of a random head."""

    def make(settings: HeadSettings = LINEAR, *, seed: int = 0, classes: int = 3) -> onnx.ModelProto:
        random, units = np.random.default_rng(seed), settings.hidden_units
        shapes = [(1280, units), units, (units, classes), classes] if units else [(1280, classes), classes]
        head = Head(settings, [random.normal(size=shape).astype(np.float32) / 4 for shape in shapes])
        part = part_to_ship(Network("head", head, {}), backbone, trunk, preparation)
        return build_classifier(part, backbone, trunk, preparation, list("abcdef"[:classes]))

    return make


@pytest.fixture
def classifier_of(graph_of, tmp_path):
    """The same as a classifier."""

    def make(*args, **kwargs) -> OnnxClassifier:
        write_graph(tmp_path / "model.onnx", graph_of(*args, **kwargs), None)
        return OnnxClassifier(tmp_path / "model.onnx")

    return make


@pytest.mark.parametrize(
    "settings", [LINEAR, *(replace(LINEAR, hidden_units=5, activation=name) for name in ("relu", "silu"))]
)
def test_both_parts_say_to_the_bit_what_the_whole_file_says(classifier_of, real_photos, settings):
    classifier = classifier_of(settings)
    photos = [load_rgb(path) for path in real_photos[:20]]
    features = np.stack([classifier.features(photo) for photo in photos])
    assert np.array_equal(classifier.from_features(features), [classifier.probabilities(photo) for photo in photos])


def test_files_with_other_heads_have_the_same_frozen_part(classifier_of):
    digests = [
        classifier_of(replace(LINEAR, hidden_units=units, activation="tanh"), seed=seed, classes=classes).parts.digest
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


def test_a_new_file_is_asked_as_a_whole_about_some_photos_in_any_case(graph_of, dataset, tmp_path):
    calls, path, photos = [], tmp_path / "a.onnx", dataset.head(5)
    threads = Threads(1, lambda *call: calls.append(call))
    examine(path, graph_of(seed=1), photos, threads, whole_on=2, store=tmp_path / "store")
    assert len(calls) == 2 + 5
    graph, said = examine(path, graph_of(), photos, threads, whole_on=2, store=tmp_path / "store")
    assert len(calls) == 2 + 5 + 2  # the store has the others
    assert np.array_equal(said, probabilities_of(OnnxClassifier(path), photos, threads, stored=None))
    assert graph == graph_of()


def test_where_the_parts_say_anything_else_the_file_is_put_together_for_good(graph_of, dataset, tmp_path, monkeypatch):
    exact = OnnxClassifier.from_features
    monkeypatch.setattr(OnnxClassifier, "from_features", lambda *args: exact(*args) * np.float32(1 + 2**-22))
    path, photos = tmp_path / "a.onnx", dataset.head(4)
    graph, said = examine(path, graph_of(), photos, Threads(1), whole_on=2, store=tmp_path / "store")
    classifier = OnnxClassifier(path)
    assert classifier.parts is None
    assert BORDER not in facts_of(graph)
    assert np.array_equal(said, probabilities_of(classifier, photos, Threads(1), stored=None))


def test_the_digest_of_the_frozen_part_is_found_in_a_file_with_a_promise(graph_of, classifier_of, tmp_path):
    write_graph(tmp_path / "promise.onnx", graph_of(seed=1), Promise(0.5, 0.9, 0.95))
    assert frozen_digest(tmp_path / "promise.onnx") == classifier_of().parts.digest
    (tmp_path / "other.onnx").write_bytes(b"no model")
    assert frozen_digest(tmp_path / "other.onnx") is None


@pytest.mark.parametrize("border", ["value99999", "image", "probabilities"])
def test_a_file_whose_parts_do_not_meet_where_it_says_is_refused(graph_of, tmp_path, border):
    graph = graph_of()
    onnx.helper.set_model_props(graph, {**facts_of(graph), BORDER: border})
    write_graph(tmp_path / "model.onnx", graph, None)
    with pytest.raises(RegraftError, match=f"no.* model exported by Regraft .*head that begins at {border}"):
        OnnxClassifier(tmp_path / "model.onnx")
