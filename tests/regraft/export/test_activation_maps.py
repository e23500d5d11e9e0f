"""A map says exactly where in a photo a class gets its logit from."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from regraft.core.errors import RegraftError
from regraft.export.activation_maps import MAPS, ActivationMaps, heat, with_maps
from regraft.photos.images import load_rgb
from regraft.serving.shipped_model import ShippedModel, run_session, start_session
from tests.support.shipped_files import shipped_graph

RANDOM = np.random.default_rng(0)


@pytest.fixture
def maps_of(trunk, preparation, tmp_path):
    """A function that loads a file to say where it looks; it returns the bias of its last layer as well."""

    def load(*, hidden: int = 0) -> tuple[ActivationMaps, np.ndarray]:
        graph, bias = shipped_graph(trunk, preparation, ["a", "b", "c"], hidden=hidden)
        onnx.save(graph, tmp_path / "model.onnx")
        return ActivationMaps(tmp_path / "model.onnx"), bias

    return load


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    logs = np.log(probabilities.astype(np.float64))
    return logs - logs.mean()


def test_the_mean_of_a_map_and_the_bias_are_the_logit(maps_of, tmp_path, real_photos):
    maps_of_photo, bias = maps_of()
    shipped = ShippedModel(tmp_path / "model.onnx")
    for photo in map(load_rgb, real_photos[:5]):
        probabilities, maps = maps_of_photo(photo)
        logits = maps.mean(axis=(1, 2)) + bias
        assert maps.shape == (3, 2, 2)  # 64 pixels over a stride of 32
        assert np.ptp(maps, axis=(1, 2)).min() > 0.001  # they tell positions apart
        assert np.abs(logits - logits.mean() - log_odds(probabilities)).max() < 2e-5  # float32 sums in another order
        # Not to the bit: ONNX Runtime arranges the last layers otherwise where one more is to be read.
        assert np.abs(probabilities - shipped.probabilities(photo)).max() < 1e-6


@pytest.mark.parametrize(
    ("pooling", "shape"),
    [
        ([helper.make_node("GlobalAveragePool", ["image"], ["p"]), helper.make_node("Flatten", ["p"], ["pooled"])], 0),
        ([helper.make_node("ReduceMean", ["image", "axes"], ["pooled"], keepdims=0)], 0),
        ([helper.make_node("ReduceMean", ["image", "others"], ["pooled"], keepdims=0)], 1),
    ],
)
def test_any_mean_over_positions_is_found(pooling, shape):
    channels = 6
    arrays = {
        "axes": np.array([-1, -2]),
        "others": np.array([2, 1]),
        "kernel": RANDOM.normal(size=(channels, 4)).astype(np.float32),
        "bias": RANDOM.normal(size=4).astype(np.float32),
    }
    nodes = [
        *pooling,
        helper.make_node("Gemm", ["pooled", "kernel", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    dims = ["batch", channels, 3, 5] if shape == 0 else ["batch", 3, 5, channels]
    graph = helper.make_graph(
        nodes,
        "any",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    whole = with_maps(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    assert whole
    image = RANDOM.normal(size=dims[1:]).astype(np.float32)
    probabilities, maps = run_session(start_session(whole.SerializeToString()), image, ["probabilities", MAPS])
    logits = maps.mean(axis=(1, 2)) + arrays["bias"]
    assert maps.shape == (4, 3, 5)
    assert np.abs(logits - logits.mean() - log_odds(probabilities)).max() < 1e-5


def test_a_head_with_a_hidden_layer_has_no_exact_maps(maps_of, colour_model):
    assert with_maps(colour_model(["a", "b", "c"])) is None  # no head at all
    with pytest.raises(RegraftError, match=r"no exact activation maps.*train_head\.kind to linear"):
        maps_of(hidden=5)


@pytest.mark.parametrize(("height", "width"), [(90, 131), (200, 64), (1, 1)])
def test_maps_cover_the_square_that_the_network_sees(maps_of, photo, height, width):
    (maps_of_photo, _), pixels = maps_of(), photo(0, width, height)
    left, top, side = maps_of_photo.square(pixels)
    assert side == max(1, round(0.875 * min(height, width)))
    beside = np.full_like(pixels, 255)
    beside[top : top + side, left : left + side] = pixels[top : top + side, left : left + side]
    assert np.array_equal(maps_of_photo(beside)[1], maps_of_photo(pixels)[1])
    inside = pixels.copy()
    inside[top + side - 1, left + side - 1] ^= 128
    assert not np.array_equal(maps_of_photo(inside)[1], maps_of_photo(pixels)[1])


def test_heat_is_what_speaks_for_a_class_more_than_for_the_others():
    maps = np.array([[[4, 1]], [[2, 1]], [[0, 1]]], np.float32)
    assert heat(maps, 0).tolist() == [[1, 0]]
    assert heat(maps, 2).tolist() == [[0, 0]]
    assert np.array_equal(heat(maps + np.float32(7), 0), heat(maps, 0))
