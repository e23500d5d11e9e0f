import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from regraft.onnx_graphs import convert as graphs
from regraft.photos.preparation import OPSET


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(output) for output in session(model).run(None, inputs)]


def small_graph(names: dict[str, str], order: list[int], *, doc: str = "") -> onnx.ModelProto:
    """y = relu(x @ a + b) * (x @ a), with inner names and the order of nodes and initializers as given."""

    def name(key: str) -> str:
        return names.get(key, key)

    nodes = [
        helper.make_node(
            "Gemm", ["x", name("a"), ""], [name("p")], name=name("n0"), alpha=1.0, transB=0, doc_string=doc
        ),
        helper.make_node("Add", [name("p"), name("b")], [name("q")], name=name("n1")),
        helper.make_node("Relu", [name("q")], [name("r")], name=name("n2")),
        helper.make_node("Mul", [name("r"), name("p")], ["y"], name=name("n3")),
    ]
    weights = [
        numpy_helper.from_array(np.array([[1, 2], [3, -4]], np.float32), name("a")),
        numpy_helper.from_array(np.array([0.5, -0.5], np.float32), name("b")),
    ]
    graph = helper.make_graph(
        [nodes[index] for index in order],
        name("graph"),
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        weights if order == sorted(order) else weights[::-1],
        value_info=[helper.make_tensor_value_info(name("p"), TensorProto.FLOAT, ["batch", 2])],
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], producer_name=name("producer"), ir_version=10)


PLAIN = small_graph({}, [0, 1, 2, 3])


@pytest.fixture(scope="module")
def model():
    """A small Keras network with two outputs."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    middle = layers.Conv2D(4, 3, 2, padding="same", name="conv")(image)
    middle = layers.BatchNormalization(name="bn")(middle)
    return keras.Model(image, [middle, layers.GlobalAveragePooling2D(name="pool")(middle)])


# Equal graphs have equal bytes.


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_equal_graphs_have_equal_bytes_whatever_their_names_and_order(order):
    names = {key: f"other_{key}" for key in ("a", "b", "p", "q", "r", "n0", "n1", "n2", "n3", "graph", "producer")}
    other = graphs.canonical(small_graph(names, order, doc="made by a converter"))
    assert other.SerializeToString() == graphs.canonical(PLAIN).SerializeToString()


def test_a_canonical_graph_computes_the_same():
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    assert np.array_equal(run(graphs.canonical(PLAIN), x=x)[0], run(PLAIN, x=x)[0])


@pytest.mark.parametrize("name", ["value2", "weight1"])
def test_a_canonical_graph_computes_the_same_even_if_an_input_has_one_of_its_names(name):
    model, x = graphs.renamed(PLAIN, {"x": name}), np.ones((1, 2), np.float32)
    assert np.array_equal(run(graphs.canonical(model), **{name: x})[0], run(PLAIN, x=x)[0])


def test_what_no_output_needs_is_left_out():
    model = onnx.ModelProto()
    model.CopyFrom(PLAIN)
    model.graph.node.append(helper.make_node("Neg", ["x"], ["unused"]))
    assert len(graphs.canonical(model).graph.node) == 4


# Composing.


def test_a_chain_computes_one_part_after_the_other():
    x = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    chain = graphs.chained([PLAIN, graphs.canonical(PLAIN), PLAIN])
    (expected,) = run(PLAIN, x=run(PLAIN, x=run(PLAIN, x=x)[0])[0])
    assert np.array_equal(run(chain, **{chain.graph.input[0].name: x})[0], expected)


# Converting.


@pytest.fixture(scope="module")
def converted(model) -> onnx.ModelProto:
    return graphs.convert_keras(model, input_name="prepared", output_names=["middle", "pooled"])


@pytest.mark.parametrize("batch", [1, 3])
def test_a_converted_model_computes_the_same_at_any_batch_size(model, converted, batch):
    images = np.random.default_rng(0).normal(size=(batch, 8, 8, 3)).astype(np.float32)
    for ours, theirs in zip(run(converted, prepared=images), model(images, training=False), strict=True):
        # float32 sums of 27 products of size one, in another order.
        assert np.allclose(ours, theirs, atol=1e-5)
