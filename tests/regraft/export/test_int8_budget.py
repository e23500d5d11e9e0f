from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import pytest

from regraft.core.config_shipping import Quantise
from regraft.export.classifier import OnnxClassifier
from regraft.export.int8_agreement import agreement_of
from regraft.export.int8_budget import Choice, choose, verdict_of
from regraft.export.int8_file import finished, what_is_wrong
from regraft.export.int8_photos import Material, material_of
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.photos.preparation import Preparation
from tests.support.conv_files import conv_file

# A few photos can show no small loss.
SETTINGS = Quantise(mode="auto", budget=0.2, max_gap=0.9, images=100, calibration_images=8)
Made = tuple[OnnxClassifier, onnx.ModelProto, Material]


@pytest.fixture(scope="module")
def judged(dataset) -> Dataset:
    """Photos that judge: as many as there are, for three photos of val would show nothing."""
    return dataset.of("val", "test", "train")


@pytest.fixture(scope="module")
def make(dataset, judged, tmp_path_factory) -> Iterator[Callable[..., Made]]:
    """A function that makes a file whose layers of these numbers are hard, and what it takes to quantise it."""
    with ExitStack() as open_files:

        def make(hard: Collection[int] = ()) -> Made:
            folder = tmp_path_factory.mktemp("made")
            model = conv_file(dataset.of("train"), Preparation(32, 1.0), hard=hard)
            onnx.save(model, folder / "model.onnx")
            classifier = OnnxClassifier(folder / "model.onnx")
            calibrating = dataset.of("train").head(8)
            material = material_of(classifier, judged, calibrating, Threads(2), scratch=folder)
            return classifier, model, open_files.enter_context(material)

        yield make


@pytest.fixture(scope="module")
def easy(make) -> Made:
    """A file of usual channels."""
    return make()


@pytest.fixture(scope="module")
def chosen(easy) -> Choice:
    """What is chosen for it."""
    return choose(easy[1], easy[2], SETTINGS, lambda graph, rows: None)


def test_the_first_rung_ships_where_it_is_within_the_budget(chosen):
    assert (chosen.rung, len(chosen.steps)) == ("int8: per channel, min-max", 1)
    assert "within 20.00%" in chosen.words
    assert chosen.steps[0].agreement.loss.high <= 0.2


def test_channels_of_enormous_range_in_one_layer_leave_a_few_layers_in_float32(make):
    _, model, material = make([3])
    choice = choose(model, material, SETTINGS, lambda graph, rows: None)
    assert [step.passed for step in choice.steps[:2]] == [False, False]
    assert choice.rung.endswith("of 8 layers in float32")
    assert choice.graph is not None


def test_a_network_of_such_channels_ships_as_float32_after_all_rungs_were_tried(make):
    _, model, material = make(range(7))
    choice = choose(model, material, SETTINGS, lambda graph, rows: None)
    assert (choice.rung, choice.graph) == ("float32", None)
    assert choice.words == "no rung is within quantise.budget, 20.00% of accuracy"
    assert [step.rung.split(";")[-1] for step in choice.steps[2:]] == [
        f" {count} of 8 layers in float32" for count in (1, 2, 4)
    ]
    assert all("photos get another class than by float32" in step.words for step in choice.steps)


def test_where_photos_are_too_few_nothing_is_tried_and_the_number_that_it_takes_is_named(easy):
    settings = SETTINGS.model_copy(update={"budget": 0.005})
    choice = choose(easy[1], easy[2], settings, lambda graph, rows: None)
    assert (choice.rung, choice.steps) == ("float32", ())
    assert "36 val photos cannot show that int8 costs at most 0.50%" in choice.words
    assert "765" in choice.words


def test_a_rung_that_is_not_right_is_passed_over_with_the_reason(easy):
    choice = choose(easy[1], easy[2], SETTINGS, lambda graph, rows: "it is wrong")
    assert choice.rung == "float32"
    assert {(step.passed, step.words) for step in choice.steps} == {(False, "it is wrong")}


def test_an_answer_that_float32_is_sure_of_may_not_change():
    exact = np.tile(np.array([[0.8, 0.2]]), (1000, 1))
    ours = exact.copy()
    ours[0] = 0.4, 0.6
    agreement = agreement_of(exact, ours, level=0.95)
    assert verdict_of(agreement, SETTINGS)[0]
    passed, words = verdict_of(agreement, SETTINGS.model_copy(update={"max_gap": 0.5}))
    assert not passed
    assert "0.60 apart, more than 0.5 (quantise.max_gap)" in words


# The file.


def test_a_file_is_proven_whole_and_one_that_says_something_else_is_found(easy, chosen, judged):
    classifier = easy[0]
    assert what_is_wrong(chosen.graph, classifier, judged, chosen.rows, tolerance=1e-4) is None
    other = np.roll(chosen.rows, 1, axis=0)
    assert "from the raw file" in str(what_is_wrong(chosen.graph, classifier, judged, other, tolerance=1e-4))


def test_the_file_says_what_the_float32_file_says_and_its_precision(easy, chosen, tmp_path: Path):
    file = finished(chosen, easy[2], None)
    (tmp_path / "model.int8.onnx").write_bytes(file.contents)
    int8 = OnnxClassifier(tmp_path / "model.int8.onnx")
    same = ("class_names", "preprocessing")
    assert [int8.metadata[name] for name in same] == [easy[0].metadata[name] for name in same]
    assert int8.metadata["precision"] == "int8: per channel, min-max"
    assert int8.metadata["quantised_from"] == easy[0].digest


def test_the_promise_is_that_of_the_int8_answers_on_val(easy, chosen):
    promised = onnx.load_from_string(finished(chosen, easy[2], 0.3).contents)
    facts = {entry.key: entry.value for entry in promised.metadata_props}
    assert facts["target_precision"] == "0.3"
    assert "of 36 val photos" in finished(chosen, easy[2], 0.3).report["abstention"]
    plain = onnx.load_from_string(finished(chosen, easy[2], None).contents)
    assert "abstain_below" not in {entry.key for entry in plain.metadata_props}


def test_equal_inputs_give_equal_bytes(easy, chosen):
    again = choose(easy[1], easy[2], SETTINGS, lambda graph, rows: None)
    assert finished(again, easy[2], None).contents == finished(chosen, easy[2], None).contents
