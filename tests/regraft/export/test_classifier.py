import numpy as np
import onnx
import pytest

from regraft.core.errors import RegraftError
from regraft.export.classifier import OnnxClassifier
from regraft.export.compose import write_graph
from regraft.serving.promise import Promise


def test_class_names_come_from_the_file(colour_classifier):
    assert colour_classifier(["rot", "grün", "blå"]).class_names == ["rot", "grün", "blå"]


@pytest.mark.parametrize(("colour", "expected"), [((255, 0, 0), 0), ((0, 255, 0), 1), ((0, 0, 255), 2)])
def test_a_photo_of_any_size_gets_one_probability_per_class(colour_classifier, colour, expected):
    probabilities = colour_classifier(["red", "green", "blue"]).probabilities(np.full((7, 13, 3), colour, np.uint8))
    # softmax of (1, 0, 0), in some order
    assert probabilities == pytest.approx(np.where(np.arange(3) == expected, np.e, 1) / (np.e + 2))


def test_a_missing_file_is_named_with_what_to_run(tmp_path):
    with pytest.raises(RegraftError, match=r"model\.onnx does not exist\. Run the pipeline first: `make retrain`"):
        OnnxClassifier(tmp_path / "model.onnx")


@pytest.mark.parametrize("contents", [b"", b"no model", bytes(1000)])
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path, contents):
    (tmp_path / "model.onnx").write_bytes(contents)
    with pytest.raises(RegraftError, match=r"model\.onnx is not a model exported by Regraft .*Export it again"):
        OnnxClassifier(tmp_path / "model.onnx")


def test_a_truncated_model_is_refused_by_name(tmp_path, colour_model):
    contents = colour_model(["a", "b", "c"]).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(contents[: len(contents) // 2])
    with pytest.raises(RegraftError, match=r"model\.onnx is not a model exported by Regraft"):
        OnnxClassifier(tmp_path / "model.onnx")


@pytest.mark.parametrize("properties", [{}, {"class_names": "a, b, c"}])
def test_a_model_of_somebody_else_is_refused_by_name(tmp_path, colour_model, properties):
    model = colour_model(["a", "b", "c"])
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(RegraftError, match=r"model\.onnx is not a model exported by Regraft .*Export it again"):
        OnnxClassifier(tmp_path / "model.onnx")


@pytest.mark.parametrize(("abstain_below", "answer"), [(0.9, None), (0.5, "red"), (None, "red")])
def test_it_gives_no_answer_below_the_threshold_of_its_file(tmp_path, colour_model, abstain_below, answer):
    promise = None if abstain_below is None else Promise(abstain_below, 0.98, 0.95)
    write_graph(tmp_path / "model.onnx", colour_model(["red", "green", "blue"]), promise and promise.as_metadata())
    red = np.full((8, 8, 3), (255, 0, 0), np.uint8)  # its probability is e / (e + 2) = 0.58
    assert OnnxClassifier(tmp_path / "model.onnx").answer(red) == answer


def test_a_model_whose_promise_is_no_number_is_refused_by_name(tmp_path, colour_model):
    model = colour_model(["a", "b", "c"])
    onnx.helper.set_model_props(model, {"class_names": '["a", "b", "c"]', "abstain_below": "often"})
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(RegraftError, match=r"not a model exported by Regraft \(abstain_below, target_precision"):
        OnnxClassifier(tmp_path / "model.onnx")
