import keras
import numpy as np
import onnx
import pytest

from regraft.backbones import trunk as module
from regraft.backbones.catalogue import choose_backbone
from regraft.backbones.trunk import agreement_of, choose_engine, load_trunk
from regraft.core.errors import ExportMismatch
from tests.support.library import SMALL_CHOICE


@pytest.fixture(scope="module")
def images(photo, preparation) -> np.ndarray:
    """Five prepared photos."""
    return np.stack([preparation(photo(seed, 80 + seed, 70)) for seed in range(5)])


def test_features_and_activations_are_those_of_the_keras_model(trunk, backbone, images):
    model = backbone.build()
    both = keras.Model(model.input, [model.get_layer(backbone.cut).output, model.output])
    activations, features = both(images.astype(np.float32), training=False)
    ours = trunk.run(images, with_activations=True)
    # float32 through fifty layers, summed in another order by another engine; values are of size one.
    assert np.allclose(ours[0], features, atol=1e-4)
    assert np.allclose(ours[1], activations, atol=1e-4)


@pytest.mark.parametrize(("output", "factor"), [("activations", 1.01), ("features", 1.01), ("features", np.nan)])
def test_a_graph_that_computes_something_else_than_keras_is_refused(trunk, backbone, output, factor):
    model = backbone.build()
    both = keras.Model(model.input, [model.get_layer(backbone.cut).output, model.output])
    graph = onnx.load(trunk.path)
    for node in graph.graph.node:
        node.output[:] = ["exact" if name == output else name for name in node.output]
        node.input[:] = ["exact" if name == output else name for name in node.input]
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array(factor, np.float32), "factor"))
    graph.graph.node.append(onnx.helper.make_node("Mul", ["exact", "factor"], [output]))
    with pytest.raises(ExportMismatch, match=r"differ by (0\.01|nan) of the largest value, over 8 images"):
        agreement_of(both, graph)


@pytest.mark.parametrize("change", [{"cut": "block9_add"}, {"weights": None}])
def test_another_cut_size_or_weights_is_another_graph(trunk, monkeypatch, change):
    class Converted(Exception): ...

    def convert(_):
        raise Converted

    monkeypatch.setattr(module, "_build_graph", convert)
    choice = SMALL_CHOICE.model_copy(update=change)
    with pytest.raises(Converted):
        load_trunk(choose_backbone(choice), trunk.path.parent)


@pytest.mark.parametrize(("has_gpu", "engine"), [(False, "onnxruntime"), (True, "tensorflow")])
def test_auto_is_tensorflow_only_with_a_gpu(monkeypatch, has_gpu, engine):
    monkeypatch.setattr("regraft.backbones.trunk._has_gpu", lambda: has_gpu)
    assert choose_engine("auto") == engine
