import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from regraft.onnx_graphs import convert as graphs
from regraft.onnx_graphs.int8 import quantised, rounded_with_means_kept
from tests.support.shipped_files import shipped_graph

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def original(trunk, preparation) -> onnx.ModelProto:
    """A file as it ships, in float32."""
    whole = shipped_graph(trunk, preparation, NAMES)[0]
    canonical = graphs.canonical(whole)
    canonical.ir_version = 8
    return canonical


@pytest.fixture(scope="module")
def photos(photo) -> list[np.ndarray]:
    """Nine photos of different sizes."""
    return [photo(seed, 80 + seed, 70) for seed in range(9)]


@pytest.fixture(scope="module")
def model(original, photos) -> onnx.ModelProto:
    """The same in int8; it takes seconds."""
    return quantised(original, photos)


def probabilities(model: onnx.ModelProto, photos: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], {"image": photos})[0])


def test_quantising_twice_gives_equal_bytes_and_leaves_the_original_as_it_is(original, model, photos):
    before = original.SerializeToString(deterministic=True)
    again = quantised(original, photos)
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert original.SerializeToString(deterministic=True) == before


def test_every_convolution_has_weights_of_7_bits_with_a_scale_for_each_filter(model):
    makers = {name: node for node in model.graph.node for name in node.output}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 49
    for node in convolutions:
        weights, scales = (tensors[name] for name in makers[node.input[1]].input[:2])
        assert weights.data_type == onnx.TensorProto.INT8
        assert list(scales.dims) == [weights.dims[0]]
        assert 32 < np.abs(numpy_helper.to_array(weights).astype(int)).max() <= 64  # two products fit into 16 bits


def test_what_prepares_a_photo_the_pooling_and_the_head_stay_in_float32(model):
    kinds = [node.op_type for node in model.graph.node]
    quantised = [index for index, kind in enumerate(kinds) if kind in ("QuantizeLinear", "DequantizeLinear")]
    assert {"Resize", "Cast"} & {*kinds[: quantised[0]]}
    assert "Gemm" in kinds[quantised[-1] :]
    assert not {"Resize", "Gemm", "Softmax"} & {*kinds[quantised[0] : quantised[-1]]}


def test_the_file_in_int8_is_close_to_float32_and_a_photo_is_the_same_in_any_batch(original, model, photo):
    some = np.stack([photo(seed, 90, 70) for seed in range(20, 26)])
    ours = probabilities(model, some)
    logits, exact = (
        np.log(each) - np.log(each).mean(axis=1, keepdims=True) for each in (ours, probabilities(original, some))
    )
    assert np.linalg.norm(logits - exact) < 0.3 * np.linalg.norm(exact)
    assert ours == pytest.approx(np.concatenate([probabilities(model, each[None]) for each in some]), abs=1e-6)


def test_a_file_without_convolutions_is_named_as_such(colour_model, photos):
    with pytest.raises(ValueError, match="no convolutions"):
        quantised(colour_model(NAMES), photos)


def test_rounding_keeps_the_sum_of_each_filter_and_moves_no_weight_by_a_whole_level():
    weights = np.random.default_rng(0).normal(0.1, 1, (200, 1, 3, 3)).astype(np.float32)
    weights[7] = 0
    level = np.maximum(np.abs(weights).max(axis=(1, 2, 3), keepdims=True), 1e-9) / 64
    rounded = rounded_with_means_kept(weights)
    moved = (rounded - weights) / level
    # 1e-3 of a level is float32 at 64 levels.
    assert np.abs(moved.sum(axis=(1, 2, 3))).max() <= 0.5 + 1e-3
    assert np.abs(moved).max() < 1
    assert np.abs(np.round(weights / level).sum(axis=(1, 2, 3)) - (weights / level).sum(axis=(1, 2, 3))).max() > 1
    assert np.allclose(rounded / level, np.round(rounded / level), atol=1e-3)
    assert not rounded[7].any()
