import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from regraft.onnx_graphs.ladder import in_int8
from regraft.onnx_graphs.quantisable import Network, Unsuitable, in_blocks, network_of
from regraft.onnx_graphs.ranges import Range, widest
from regraft.photos.preparation import Preparation
from tests.support.conv_files import conv_file

SIDE = 32


@pytest.fixture(scope="module")
def whole(dataset) -> onnx.ModelProto:
    """A small file."""
    return conv_file(dataset.of("train"), Preparation(SIDE, 1.0))


@pytest.fixture(scope="module")
def network(whole) -> Network:
    """What of it can be quantised."""
    return network_of(whole, SIDE)


@pytest.fixture(scope="module")
def prepared(photo) -> np.ndarray:
    """Nine prepared photos."""
    preparation = Preparation(SIDE, 1.0)
    return np.stack([preparation(photo(seed, 80 + seed, 70)) for seed in range(9)])


@pytest.fixture(scope="module")
def ranges(network, prepared) -> dict[str, Range]:
    """How large the activations of these photos are."""
    return widest(network.graph, list(prepared))


@pytest.fixture(scope="module")
def int8(network, ranges) -> onnx.ModelProto:
    """The file in int8."""
    return network.completed(in_int8(network, ranges), with_preparation=True)


def probabilities(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], {session.get_inputs()[0].name: images})[0])


def weights_in_int8(model: onnx.ModelProto) -> list[np.ndarray]:
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [numpy_helper.to_array(tensor) for tensor in tensors.values() if len(tensor.dims) == 4]
    return [each for each in weights if each.dtype == np.int8]


def test_the_network_in_float32_put_back_computes_what_the_file_did(whole, network, photo, prepared):
    picture = photo(1, 90, 70)[None]
    again = network.completed(network.graph, with_preparation=True)
    assert probabilities(again, picture) == pytest.approx(probabilities(whole, picture), abs=1e-6)
    inner = network.completed(network.graph, with_preparation=False)
    assert probabilities(inner, Preparation(SIDE, 1.0)(picture[0])[None]) == pytest.approx(
        probabilities(whole, picture), abs=1e-6
    )


def test_the_file_in_int8_has_the_same_ends_and_is_close_to_float32(whole, int8, photo):
    assert [*int8.graph.input, *int8.graph.output] == [*whole.graph.input, *whole.graph.output]
    assert (int8.ir_version, list(int8.opset_import)) == (whole.ir_version, list(whole.opset_import))
    onnx.checker.check_model(int8, full_check=True)
    picture = photo(3, 90, 70)[None]
    assert probabilities(int8, picture) == pytest.approx(probabilities(whole, picture), abs=0.1)


def test_all_convolutions_are_quantised_with_7_bits_and_a_scale_per_filter(int8):
    weights = weights_in_int8(int8)
    assert len(weights) == 8
    assert {int(np.abs(each.astype(int)).max()) for each in weights} == {64}
    tensors = {tensor.name: tensor for tensor in int8.graph.initializer}
    makers = {name: node for node in int8.graph.node for name in node.output}
    convolutions = [node for node in int8.graph.node if node.op_type == "Conv"]
    assert {tuple(tensors[makers[node.input[1]].input[1]].dims) for node in convolutions} == {(16,)}


def test_what_prepares_a_photo_and_what_follows_the_pooling_stay_as_they_were(whole, int8):
    kinds = [[node.op_type for node in model.graph.node] for model in (whole, int8)]
    first, last = kinds[0].index("Transpose"), kinds[0].index("ReduceMean")
    assert kinds[1][:first] == kinds[0][:first]
    assert kinds[1][kinds[1].index("ReduceMean") :] == kinds[0][last:]


def test_quantising_twice_gives_equal_bytes_and_changes_nothing_that_was_given(whole, network, ranges, int8):
    before = whole.SerializeToString(deterministic=True)
    again = network_of(whole, SIDE).completed(in_int8(network, ranges), with_preparation=True)
    assert again.SerializeToString(deterministic=True) == int8.SerializeToString(deterministic=True)
    assert whole.SerializeToString(deterministic=True) == before


def test_a_photo_has_the_same_bits_in_any_batch(network, ranges, prepared):
    inner = network.completed(in_int8(network, ranges), with_preparation=False)
    alone = np.concatenate([probabilities(inner, image[None]) for image in prepared])
    assert probabilities(inner, prepared) == pytest.approx(alone, abs=1e-6)


def test_layers_that_are_left_out_keep_their_weights_and_one_alone_is_the_only_one(network, ranges):
    assert len(network.layers) == 8
    assert len(weights_in_int8(in_int8(network, ranges, left=network.layers[:3]))) == 5
    assert len(weights_in_int8(in_int8(network, ranges, alone=network.layers[2:3]))) == 1


@pytest.mark.parametrize("left", [[3], [0, 1, 5], [7]])
def test_onnx_runtime_does_not_quantise_what_was_left_in_float32(network, ranges, left, tmp_path):
    graph = in_int8(network, ranges, left=[network.layers[layer] for layer in left])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    contents = network.completed(graph, with_preparation=False).SerializeToString()
    onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearConv") == 8 - len(left)
    assert kinds.count("Conv") + kinds.count("FusedConv") == len(left)


def test_layers_form_blocks_of_neighbours(network):
    blocks = in_blocks(network.layers, 3)
    assert [len(block) for block in blocks] == [3, 2, 3]
    assert [layer for block in blocks for layer in block] == list(network.layers)
    assert [len(block) for block in in_blocks(network.layers, 48)] == [1] * 8


def test_a_file_without_convolutions_is_named_as_such(colour_model):
    with pytest.raises(Unsuitable, match="no convolutions"):
        network_of(colour_model(["a", "b", "c"]), SIDE)


def test_a_file_that_is_int8_already_is_left_alone(int8):
    with pytest.raises(Unsuitable, match="int8 already"):
        network_of(int8, SIDE)
