import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from regraft.onnx_graphs.ranges import percentile, widest


@pytest.fixture
def graph() -> onnx.ModelProto:
    """Casts pixels to float32 and negates them."""
    nodes = [
        helper.make_node("Cast", ["prepared"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["numbers"], ["negative"]),
    ]
    given = helper.make_tensor_value_info("prepared", TensorProto.UINT8, ["batch", 100, 100, 3])
    made = helper.make_tensor_value_info("negative", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph(nodes, "g", [given], [made]), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    return onnx.shape_inference.infer_shapes(model)


def photos() -> list[np.ndarray]:
    grey = np.random.default_rng(0).integers(0, 101, (100, 100, 3)).astype(np.uint8)
    odd = grey.copy()
    odd[0, 0, 0] = 250
    return [grey, odd]


def test_ranges_go_from_the_smallest_to_the_largest_value_of_all_photos(graph):
    assert widest(graph, photos()) == {"numbers": (0.0, 250.0), "negative": (-250.0, 0.0)}


def test_a_percentile_leaves_out_what_is_rare_and_nothing_at_zero(graph):
    whole = widest(graph, photos())
    cut = percentile(graph, photos(), whole, 0.999)
    assert cut["numbers"] == (0.0, pytest.approx(100, abs=0.5))
    assert cut["negative"] == (pytest.approx(-100, abs=0.5), 0.0)
    assert percentile(graph, photos(), whole, 1.0) == whole


def test_a_tensor_that_is_constant_or_no_number_keeps_its_range(graph):
    black = [np.zeros((100, 100, 3), np.uint8)]
    assert percentile(graph, black, widest(graph, black), 0.9)["numbers"] == (0.0, 0.0)
    ranges = {"numbers": (float("-inf"), 1.0), "negative": (0.0, float("nan"))}
    assert percentile(graph, black, ranges, 0.9)["numbers"] == (float("-inf"), 1.0)
