from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from regraft.backbones.trunk import ACTIVATIONS, FEATURES, Trunk
from regraft.onnx_graphs import convert as graphs
from regraft.onnx_graphs.int8 import calibration_pictures, quantised, rounded_with_means_kept


@pytest.fixture(scope="module")
def original(trunk: Trunk) -> onnx.ModelProto:
    """The frozen small backbone in float32."""
    return onnx.load(trunk.path)


@pytest.fixture(scope="module")
def model(original: onnx.ModelProto) -> onnx.ModelProto:
    """The same in int8; it takes seconds."""
    return quantised(original, 64)


@pytest.fixture(scope="module")
def images(photo, preparation) -> np.ndarray:
    """Nine prepared photos."""
    return np.stack([preparation(photo(seed, 80 + seed, 70)) for seed in range(9)])


def runner(model: onnx.ModelProto, *, threads: int = 1) -> Callable[..., np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda output, images: np.asarray(session.run([output], {"prepared": images})[0])


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


# The graph.


def test_quantising_twice_gives_equal_bytes_and_leaves_the_original_as_it_is(original, model):
    before = original.SerializeToString(deterministic=True)
    again = quantised(original, 64)
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert original.SerializeToString(deterministic=True) == before


def test_the_graph_is_in_canonical_form_with_the_same_input_and_outputs(original, model):
    assert graphs.canonical(model).SerializeToString() == model.SerializeToString()
    assert [model.graph.input[0], *model.graph.output] == [original.graph.input[0], *original.graph.output]


def test_every_convolution_has_int8_weights_with_a_scale_for_each_filter(model):
    makers = {node.output[0]: node for node in model.graph.node}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 49
    for node in convolutions:
        weights, scales = (tensors[name] for name in makers[node.input[1]].input[:2])
        assert weights.data_type == onnx.TensorProto.INT8
        assert list(scales.dims) == [weights.dims[0]]


def test_no_two_products_can_overflow_16_bits(model):
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    largest = max(np.abs(numpy_helper.to_array(tensor).astype(int)).max() for tensor in weights)
    assert largest > 32
    assert 2 * 255 * largest < 2**15


# What it computes.


@pytest.mark.parametrize(("output", "limit"), [(FEATURES, 0.3), (ACTIVATIONS, 0.18)])
def test_the_result_is_close_to_float32(original, model, images, output, limit):
    # Measured: 0.21 and 0.13; with weights rounded to the nearest level 0.39 and 0.24.
    assert relative_error(runner(model)(output, images), runner(original)(output, images)) < limit


@pytest.mark.parametrize("output", [FEATURES, ACTIVATIONS])
def test_a_photo_has_the_same_bits_in_any_batch_and_on_any_number_of_threads(model, images, output):
    alone = np.concatenate([runner(model)(output, image[None]) for image in images])
    assert np.array_equal(runner(model)(output, images), alone)
    assert np.array_equal(runner(model, threads=2)(output, images), alone)


@pytest.mark.parametrize("output", [FEATURES, ACTIVATIONS])
def test_the_part_that_ships_computes_the_same(model, images, output):
    part = graphs.part_of(model, [output])
    assert np.array_equal(runner(part)(output, images), runner(model)(output, images))


# Rounding.


def test_rounding_keeps_the_sum_of_each_filter_and_moves_no_weight_by_a_whole_level():
    weights = np.random.default_rng(0).normal(0.1, 1, (200, 1, 3, 3)).astype(np.float32)
    level = np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / 64
    moved = (rounded_with_means_kept(weights) - weights) / level
    # 1e-3 of a level is float32 at 64 levels.
    assert np.abs(moved.sum(axis=(1, 2, 3))).max() <= 0.5 + 1e-3
    assert np.abs(moved).max() < 1
    assert np.abs(np.round(weights / level).sum(axis=(1, 2, 3)) - (weights / level).sum(axis=(1, 2, 3))).max() > 1


def test_rounded_weights_are_whole_levels_up_to_64():
    weights = np.random.default_rng(0).normal(size=(200, 5, 1, 1)).astype(np.float32)
    level = np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / 64
    levels = rounded_with_means_kept(weights) / level
    assert np.allclose(levels, np.round(levels), atol=1e-3)
    assert np.allclose(np.abs(levels).max(axis=(1, 2, 3)), 64, atol=1e-3)


def test_a_filter_of_zeros_stays_one():
    assert not rounded_with_means_kept(np.zeros((2, 1, 3, 3), np.float32)).any()


# Pictures.


def test_the_pictures_are_always_the_same_and_all_different():
    first, second = (np.stack(list(calibration_pictures(5, 32))) for _ in range(2))
    assert np.array_equal(first, second)
    assert len(np.unique(first, axis=0)) == 5


def test_the_pictures_use_the_whole_range_of_brightness():
    pictures = np.stack(list(calibration_pictures(32, 64)))
    assert (pictures.dtype, pictures.shape) == (np.uint8, (32, 64, 64, 3))
    assert (pictures.min(), pictures.max()) == (0, 255)
    means = pictures.mean(axis=(1, 2, 3))
    assert means.min() < 70
    assert means.max() > 180
