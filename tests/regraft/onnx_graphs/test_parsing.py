"""A graph is what the bytes of its file hold: one that names other files is refused, wherever in it that is."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from regraft.core.errors import InvalidModel
from regraft.onnx_graphs.parsing import parse_graph
from tests.support.hostile_models import constant, external, node

SHARES = (0.5, 0.25, 0.25)


def _elsewhere() -> TensorProto:
    return external("secret.bin").graph.initializer[-1]


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


ELSEWHERE = [
    lambda: external("secret.bin"),
    lambda: external("/etc/passwd"),
    _of_a_node,
    _of_a_branch,
]


@pytest.mark.parametrize("make", ELSEWHERE)
def test_a_graph_whose_weights_are_in_another_file_is_none(make):
    with pytest.raises(InvalidModel, match="weights of the model are in other files"):
        parse_graph(make().SerializeToString())


def test_what_is_no_graph_is_none():
    with pytest.raises(ValueError, match="no ONNX"):
        parse_graph(b"\xff" * 50)
