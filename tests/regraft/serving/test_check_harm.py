"""`check-model` of files that are no model of Regraft's, or that mean harm: for each a clear error."""

import base64
import json
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from regraft.core.errors import RegraftError
from regraft.serving.check_model import look_over, told
from tests.support.served import colour_graph, promote_and_serve


def failed(path: Path) -> list[str]:
    return [check.name for check in look_over(path) if check.status == "failed"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """models/production with one model."""
    folder = tmp_path / "models" / "production"
    promote_and_serve(folder, 1.0)
    return folder


def _saved(path: Path, change) -> None:
    graph = colour_graph()
    change(graph)
    onnx.save(graph, path)


def _renamed(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].name = graph.graph.node[0].input[0] = "picture"


def _float(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def _no_probabilities(graph: onnx.ModelProto) -> None:
    del graph.graph.output[0]


def _not_a_number(graph: onnx.ModelProto) -> None:
    graph.graph.initializer[-1].raw_data = np.full((3, 3), np.nan, np.float32).tobytes()


def _logits(graph: onnx.ModelProto) -> None:
    graph.graph.node[4].op_type = "Identity"


def _of_the_batch(graph: onnx.ModelProto) -> None:
    graph.graph.node[4].attribute.append(helper.make_attribute("axis", 0))


def _named(names: object):
    return lambda graph: helper.set_model_props(graph, {"class_names": json.dumps(names)})


def _said(text: str):
    return lambda graph: helper.set_model_props(graph, {"class_names": text})


HARM = {
    "another input": (_renamed, "image"),
    "floats": (_float, "image"),
    "no probabilities": (_no_probabilities, "probabilities"),
    "not a number": (_not_a_number, "no number"),
    "logits": (_logits, "sum is not 1"),
    "a softmax over the batch": (_of_the_batch, "sum is not 1"),
    "no classes": (_named([]), "class_names"),
    "one class": (_named(["a"]), "class_names"),
    "too many classes": (_named(["a", "b", "c", "d"]), ""),
    "numbers as names": (_named([1, 2, 3]), "class_names"),
    "names twice": (_named(["a", "a", "b"]), "class_names"),
    "names that are no list": (_named({"a": 0}), "class_names"),
    "no names": (lambda graph: helper.set_model_props(graph, {}), "class_names"),
    "deep names": (_said("[" * 100_000), ""),
    "names that are no JSON": (_said("apple"), ""),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_model_that_does_not_keep_the_contract_fails_with_what_was_expected(tmp_path, harm):
    change, words = HARM[harm]
    _saved(tmp_path / "model.onnx", change)
    (check,) = [check for check in look_over(tmp_path) if check.status == "failed"]
    assert words in check.words


@pytest.mark.parametrize("contents", [b"", b"no model", b"\x08\x08" + os.urandom(5000), b"\xff" * 5000])
def test_what_is_no_model_fails_to_load(tmp_path, contents):
    (tmp_path / "model.onnx").write_bytes(contents)
    assert failed(tmp_path) in (["loads"], ["contract"])


def test_half_a_model_fails(folder):
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    assert failed(folder) == ["sha256", "loads"]


def test_what_a_terminal_would_obey_is_shown_as_text(tmp_path):
    _saved(tmp_path / "model.onnx", lambda graph: helper.set_model_props(graph, {
        "class_names": '["a", "b", "c"]', "regraft_version": "\x1b[2J\u202e"
    }))  # fmt: skip
    assert "\x1b" not in told(look_over(tmp_path))
    assert "\\x1b" in told(look_over(tmp_path))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_is_no_regular_file_is_never_waited_for(tmp_path, make):
    make(tmp_path / "model.onnx")
    with pytest.raises(RegraftError, match=r"is no regular file|contains no model"):
        look_over(tmp_path)


def test_a_file_longer_than_any_model_is_not_read(tmp_path):
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RegraftError, match="no ONNX file has more than"):
        look_over(tmp_path)


def test_a_golden_photo_of_a_billion_pixels_is_not_decoded(folder):
    picture = BytesIO()
    Image.new("RGB", (30_000, 200)).save(picture, "PNG")
    golden = json.loads((folder / "golden.json").read_text())
    golden["picture"] = "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
    (folder / "golden.json").write_text(json.dumps(golden))
    assert failed(folder) == ["golden photo"]


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_where_there_is_no_model_it_says_what_was_expected(tmp_path, path):
    with pytest.raises(RegraftError, match=r"Expected a model\.onnx, or a folder with one such as models/production"):
        look_over(tmp_path / path)
