"""A graph is what the bytes of its file hold: one that names other files is refused, wherever in it that is."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from regraft.core.errors import InvalidModel, RegraftError
from regraft.export.activation_maps import ActivationMaps
from regraft.onnx_graphs.parsing import parse_graph
from regraft.reports.try_page.build import write_try_page
from regraft.reports.try_page.runtime import WebRuntime
from tests.support.hostile_models import constant, external, node, write_model

SHARES = (0.5, 0.25, 0.25)


def _elsewhere() -> TensorProto:
    return external("secret.bin").graph.initializer[-1]


def _unused() -> onnx.ModelProto:
    model = constant(*SHARES)
    model.graph.initializer.append(_elsewhere())
    model.graph.initializer[-1].name = "unused"
    return model


def _of_a_node() -> onnx.ModelProto:
    model = constant(*SHARES)
    model.graph.node.append(node("Constant", [], ["more"], value=_elsewhere()))
    return model


def _of_a_branch() -> onnx.ModelProto:
    branch = helper.make_graph([node("Identity", ["said"], ["more"])], "branch", [], [], [_elsewhere()])
    model = constant(*SHARES)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
    model.graph.node.append(node("If", ["go"], ["more"], then_branch=branch, else_branch=branch))
    return model


def _of_a_function() -> onnx.ModelProto:
    model = constant(*SHARES)
    nodes = [node("Constant", [], ["more"], value=_elsewhere())]
    model.functions.append(helper.make_function("own", "f", [], ["more"], nodes, model.opset_import))
    return model


ELSEWHERE = [
    lambda: external("secret.bin"),
    lambda: external("/etc/passwd"),
    _unused,
    _of_a_node,
    _of_a_branch,
    _of_a_function,
]


@pytest.mark.parametrize("make", ELSEWHERE)
def test_a_graph_whose_weights_are_in_another_file_is_none(make):
    with pytest.raises(InvalidModel, match="weights of the model are in other files"):
        parse_graph(make().SerializeToString())


def test_what_is_no_graph_is_none():
    with pytest.raises(ValueError, match="no ONNX"):
        parse_graph(b"\xff" * 50)


@pytest.mark.parametrize("make", ELSEWHERE)
def test_neither_the_page_to_try_a_model_nor_its_maps_read_another_file(tmp_path: Path, make):
    path = write_model(tmp_path, make)
    runtime = WebRuntime(library="export{a as b};", wasm=b"")
    for use in (lambda: write_try_page(tmp_path / "try.html", path, runtime), lambda: ActivationMaps(path)):
        with pytest.raises(
            RegraftError, match=r"External data|should be stored in|weights of the model are in other files"
        ):
            use()
    assert not (tmp_path / "try.html").exists()
