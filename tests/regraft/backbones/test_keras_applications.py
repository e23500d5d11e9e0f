import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from regraft.backbones.catalogue import Backbone, choose_backbone
from regraft.backbones.cut_points import cut_points
from regraft.backbones.keras_backbones import applications, as_backbone
from regraft.core.config import BackboneChoice
from regraft.core.errors import InvalidWeights

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
# One of each kind: caffe; gates and arithmetic between layers; tf.
NAMES = ["VGG16", "MobileNetV3Small", "MobileNet"]


def choose(name: str, **changes: object) -> Backbone:
    choice = BackboneChoice(
        name=name, weights=None, preprocessing="auto", image_size=75, cut="auto", engine="onnxruntime"
    )
    return choose_backbone(choice.model_copy(update=changes))


def convnext(name: str = "small_convnext") -> keras.Model:
    """A small ConvNeXt: nested parts, LayerScale, GELU, convolutions in groups."""
    from keras.src.applications.convnext import ConvNeXt

    keras.utils.set_random_seed(0)
    network = ConvNeXt(
        [1, 1, 2, 1], [8, 16, 24, 32], name=name, include_top=False, pooling="avg", input_shape=(64, 64, 3)
    )
    for variable in network.weights:
        if "layer_scale" in variable.path:
            variable.assign(np.ones(variable.shape))  # 1e-6 would hide everything before it
    return network


@pytest.fixture(autouse=True)
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in params.yaml are relative to the project's root."""
    monkeypatch.chdir(tmp_path)


# As Keras computes them.


@pytest.mark.parametrize("name", NAMES)
def test_a_network_computes_what_keras_computes_and_so_do_its_two_halves(name, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (1, 75, 75, 3)).astype(np.float32)
    theirs = getattr(keras.applications, name)(weights=None, include_top=False, pooling="avg", input_shape=(75, 75, 3))
    theirs.save_weights("a.weights.h5")
    backbone = choose(name, weights="a.weights.h5")
    ours = backbone.build()
    module = __import__(f"keras.applications.{applications()[name].family}", fromlist=["_"])
    expected = np.asarray(theirs(module.preprocess_input(images.copy()), training=False))
    features = np.asarray(ours(images, training=False))
    # float32; a Rescaling multiplies where `preprocess_input` divides.
    assert features == pytest.approx(expected, rel=1e-3, abs=1e-4 * float(np.abs(expected).max()))
    cut = ours.get_layer(backbone.cut).output
    halves = keras.Model(cut, ours.output)(keras.Model(ours.input, cut)(images, training=False), training=False)
    assert np.array_equal(halves, features)


def test_a_network_with_nested_parts_can_be_cut_inside_and_computes_the_same():
    network = convnext()
    flat = as_backbone(network, 64, "none", "flat")
    assert not [layer for layer in flat.layers if isinstance(layer, keras.Model)]
    assert len(cut_points(flat)) > len(cut_points(network))
    # float32: the convolution in groups is a depthwise one, and sums in another order.
    assert np.asarray(flat(IMAGES, training=False)) == pytest.approx(
        np.asarray(network(IMAGES, training=False)), rel=1e-3, abs=1e-4
    )


# Weights.


def saved(name: str, file: str, **changes: Any) -> keras.Model:
    """A model of keras.applications with weights of its own, which are in `file`."""
    settings = {"weights": None, "input_shape": (64, 64, 3)} | changes
    model = getattr(keras.applications, name)(**settings)
    if file.endswith(".weights.h5"):
        model.save_weights(file)
    else:
        model.save(file)
    return model


@pytest.mark.parametrize(("file", "include_top"), [("a.weights.h5", True), ("a.h5", False)])
def test_a_file_of_the_model_with_or_without_its_classifier_fills_the_network(file, include_top, monkeypatch):
    theirs = saved("MobileNetV3Small", file, include_top=include_top, classes=5)
    layer = "expanded_conv_4_project"
    ours = choose("mobilenet_v3_small", image_size=64, weights=file).build()
    expected = [theirs.get_layer(name).get_weights()[0] for name in ("conv", layer, "conv_1")]
    assert all(
        np.array_equal(ours.get_layer(name).get_weights()[0], value)
        for name, value in zip(("conv", layer, "conv_1"), expected, strict=True)
    )


@pytest.mark.parametrize("file", ["a.weights.h5", "a.pth"])
def test_a_file_that_is_none_of_keras_is_refused_by_name(file):
    Path(file).write_bytes(b"anything")
    with pytest.raises(InvalidWeights, match=rf"{re.escape(file)} does not hold the weights of MobileNetV3Small"):
        choose("MobileNetV3Small", image_size=64, weights=file).build()


def test_the_published_normalisation_of_efficientnet_means_the_same_from_a_file():
    # Keras divides by the square root of the deviations once more, but only when it downloads the file itself.
    network = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(64, 64, 3))
    mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    network.get_layer(index=2).set_weights([mean, deviation, np.array(0)])
    network.save_weights("a.weights.h5")
    ours = choose("EfficientNetB0", image_size=64, weights="a.weights.h5").build()
    normalised = keras.Model(ours.input, ours.get_layer("normalization").output)(IMAGES)
    assert np.asarray(normalised) == pytest.approx((IMAGES / 255 - mean) / deviation, abs=1e-4)
