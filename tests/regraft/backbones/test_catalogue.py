import importlib.metadata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from regraft.backbones.catalogue import CATALOGUE, Backbone, choose_backbone
from regraft.backbones.cut_points import CutPoint, best_cut, check_top, checked_cut, cut_points, multiply_adds
from regraft.backbones.torch_backbones import read_tensors
from regraft.core.config import BackboneChoice
from regraft.core.errors import InvalidParams, InvalidWeights
from tests.support.torch_files import write_weights

if TYPE_CHECKING:
    import keras

LITE0 = BackboneChoice(
    name="efficientnet_lite0", weights=None, preprocessing="auto", image_size=64, cut="auto", engine="auto"
)


def choose(**changes: object) -> Backbone:
    return choose_backbone(LITE0.model_copy(update=changes))


@pytest.fixture(scope="module")
def built() -> Callable[[str], tuple[Backbone, "keras.Model"]]:
    """A function that returns a backbone with random weights and its network, by name; each takes a second to build."""

    @cache
    def build(name: str) -> tuple[Backbone, "keras.Model"]:
        backbone = choose(name=name)
        return backbone, backbone.build()

    return build


@pytest.fixture(scope="module")
def weights_of(tmp_path_factory: pytest.TempPathFactory, built) -> Callable[[str], Path]:
    """A function that returns weights of a backbone: those of its package if they are a dependency, or made up."""

    @cache
    def weights(name: str) -> Path:
        if name == "efficientnet_lite0":
            return CATALOGUE["efficientnet_lite0"].pretrained()
        return write_weights(tmp_path_factory.mktemp("weights") / f"{name}.pth", built(name)[1])

    return weights


@pytest.fixture(scope="module")
def lite0() -> "keras.Model":
    """EfficientNet-Lite0 with its ImageNet weights."""
    return choose(weights="imagenet").build()


@pytest.fixture(scope="module")
def branched() -> "keras.Model":
    """image -> first -> (left, right) -> joined -> (last, joined) -> sum -> features."""
    import keras
    from keras import layers

    def conv(name: str):
        return layers.Conv2D(4, 1, use_bias=False, name=name)

    image = keras.Input((8, 8, 4), name="image")
    first = conv("first")(image)
    joined = layers.Add(name="joined")([conv("left")(first), conv("right")(first)])
    total = layers.Add(name="sum")([conv("last")(joined), joined])
    return keras.Model(image, layers.GlobalAveragePooling2D(name="features")(total), name="branched")


# Cuts.


def test_a_network_can_be_cut_where_every_path_goes_through_one_output(branched):
    assert [point.name for point in cut_points(branched)] == ["first", "joined", "sum"]


def test_the_multiply_adds_of_a_network_are_those_of_its_definition():
    import keras
    from keras import layers

    image = keras.Input((9, 8, 4))
    maps = layers.DepthwiseConv2D(3, padding="same")(layers.Conv2D(6, 3, use_bias=False)(image))
    network = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.BatchNormalization()(maps))))
    assert multiply_adds(network) == 7 * 6 * (3 * 3 * 4 * 6) + 7 * 6 * (3 * 3 * 6) + 6 * 5


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([("early", 9, 0.9), ("large", 9, 0.65), ("small", 4, 0.69), ("late", 1, 0.1)], "small"),
        ([("first", 4, 0.69), ("last", 4, 0.61), ("late", 1, 0.1)], "last"),
        ([("early", 1, 0.95), ("late", 9, 0.55)], "late"),
    ],
)
def test_the_automatic_cut_is_the_smallest_activation_with_about_two_thirds_of_the_work_above(
    monkeypatch, branched, points, expected
):
    monkeypatch.setattr("regraft.backbones.cut_points.cut_points", lambda _: [CutPoint(*point) for point in points])
    assert best_cut(branched) == expected


def test_a_cut_beside_a_branch_is_refused_with_the_possible_ones(branched):
    with pytest.raises(
        InvalidParams,
        match=r"backbone\.cut: branched cannot be cut after 'left'\. Expected auto, or one of: first, joined, sum",
    ):
        checked_cut(branched, "left")
    assert checked_cut(branched, "joined") == "joined"


def test_fine_tuning_after_a_cut_with_nothing_left_to_train_is_refused_with_what_to_do(branched):
    import keras

    with_head = keras.Model(branched.input, keras.layers.Dense(3)(branched.output), name="branched")
    with pytest.raises(
        InvalidParams,
        match=r"fine_tune\.mode: branched has no layer to train after the cut 'sum'\. Set fine_tune\.mode to off.*"
        r"backbone\.cut to one of: first, joined\.",
    ):
        check_top(with_head, "sum")
    check_top(with_head, "joined")


# Choosing.


def test_an_unknown_backbone_is_refused_with_the_known_ones():
    with pytest.raises(
        InvalidParams,
        match=r"backbone\.name: expected a file that ends in \.keras, or one of: efficientnet_lite0, .*ConvNeXtTiny, .*"
        r"Xception\. Received: 'resnet'",
    ):
        choose(name="resnet")


def test_installed_weights_that_are_not_the_published_ones_are_refused_unread(monkeypatch, tmp_path):
    path = tmp_path / "other.pth"
    path.write_bytes(b"other")
    file = importlib.metadata.PackagePath(path.name)
    file.dist = SimpleNamespace(locate_file=lambda name: tmp_path / name)
    monkeypatch.setattr(importlib.metadata, "files", lambda _: [file])
    with pytest.raises(InvalidWeights, match=r"other\.pth has the SHA-256 [0-9a-f]{64}\. Expected [0-9a-f]{64}"):
        choose(weights="imagenet")


# Building and loading.


def test_random_weights_are_the_same_whenever_the_backbone_is_built(built):
    # Its graph is kept in the store from one stage to the next; other weights in the next stage would not belong to it.
    first, second = (network.get_weights() for network in (built("efficientnet_lite0")[1], choose().build()))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_file_of_weights_fills_every_layer_and_leaves_only_the_classifier(name, weights_of, built):
    path = weights_of(name)
    recipe = CATALOGUE[name]
    before = built(name)[1].get_weights()
    after = recipe.build(64, recipe.preprocessing, path).get_weights()
    assert [index for index, value in enumerate(after) if np.array_equal(value, before[index])] == []
    used = {name for name in read_tensors(path) if not name.endswith("num_batches_tracked")}
    assert len(used) - len(after) == len({name for name in used if name.startswith("_fc")})


def test_a_convolution_computes_what_pytorch_computes(lite0):
    # By hand, from the tensor as PyTorch keeps it (out, in, height, width). For stride 2 on an even size, TensorFlow
    # pads one row below and one column to the right.
    kernel = read_tensors(CATALOGUE["efficientnet_lite0"].pretrained())["_conv_stem.weight"]
    image = np.random.default_rng(0).normal(size=(64, 64, 3)).astype(np.float32)
    padded = np.pad(image, ((0, 1), (0, 1), (0, 0)))
    by_hand = np.einsum("hwc,ochw->o", padded[2:5, 62:65], kernel)
    # float32 sums of 27 products of size one, added in another order.
    assert np.asarray(lite0.get_layer("stem_conv")(image[None]))[0, 1, 31] == pytest.approx(by_hand, abs=1e-5)


def test_weights_of_a_larger_variant_are_refused(tmp_path):
    with pytest.raises(InvalidWeights, match=r"_blocks\.3\._.* has shape .* as in efficientnet_lite2"):
        CATALOGUE["efficientnet_lite2"].build(64, "lite", CATALOGUE["efficientnet_lite0"].pretrained())
