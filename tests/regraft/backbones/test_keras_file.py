import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from regraft.backbones.catalogue import Backbone, choose_backbone
from regraft.core.config import BackboneChoice
from regraft.core.errors import InvalidParams, InvalidWeights

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)


def choose(name: str, *, image_size: Any = "auto", weights: str = "own") -> Backbone:
    return choose_backbone(
        BackboneChoice(
            name=name, weights=weights, preprocessing="auto", image_size=image_size, cut="auto", engine="onnxruntime"
        )
    )


@pytest.fixture(autouse=True)
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in params.yaml are relative to the project's root."""
    monkeypatch.chdir(tmp_path)


def own(build: Callable[[Any], Any], *, side: int | None = 32, channels: int = 3) -> Backbone:
    """The backbone that a model file is; `build` makes of its input tensor its output."""
    keras.utils.set_random_seed(0)
    image = keras.Input((side, side, channels))
    keras.Model(image, build(image)).save("mine.keras")
    return choose("mine.keras")


def maps(image: Any) -> Any:
    """Feature maps with eight channels."""
    return layers.Conv2D(8, 3, activation="relu", name="maps")(image)


def features_of(backbone: Backbone) -> np.ndarray:
    return np.asarray(backbone.build()(IMAGES, training=False))


@pytest.mark.parametrize(
    "end",
    [
        lambda x: x,
        lambda x: layers.Softmax()(layers.Dense(3)(layers.Dropout(0.5)(layers.Flatten()(x)))),
        lambda x: layers.Dense(3)(layers.Dense(16, activation="relu")(layers.GlobalAveragePooling2D()(x))),
    ],
    ids=["maps", "flattened", "hidden layer"],
)
def test_a_model_file_gives_its_pooled_features_however_it_ends(end):
    backbone = own(lambda image: end(maps(image)))
    assert (backbone.name, backbone.image_size, backbone.preprocessing) == ("mine", 32, "none")
    kernel, bias = keras.saving.load_model("mine.keras").get_layer("maps").get_weights()
    by_hand = np.maximum(np.asarray(keras.ops.conv(IMAGES, kernel)) + bias, 0).mean(axis=(1, 2))
    assert features_of(backbone) == pytest.approx(by_hand, rel=1e-4)


def test_a_nested_model_is_taken_apart_and_a_layer_that_is_used_twice_stays_one():
    inner_image = keras.Input((32, 32, 3))
    twice = layers.Conv2D(3, 3, padding="same")
    inner = keras.Model(inner_image, twice(twice(inner_image)))
    backbone = own(lambda image: maps(inner(image, training=False)))
    model = backbone.build()
    expected = np.mean(keras.saving.load_model("mine.keras")(IMAGES, training=False), axis=(1, 2))
    assert features_of(backbone) == pytest.approx(expected, rel=1e-5)
    assert [layer.name for layer in model.layers] == ["image", "conv2d", "maps", "features"]


def test_a_sequential_model_of_any_size_takes_the_size_in_params():
    keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3), layers.ReLU()]).save("mine.keras")
    assert choose("mine.keras", image_size=40).build().input_shape == (None, 40, 40, 3)
    with pytest.raises(InvalidParams, match=r"mine\.keras takes images of any size\. Expected a number of pixels"):
        choose("mine.keras")


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (lambda image: layers.Dense(3)(layers.Flatten()(image)), {}, r"mine has no feature maps"),
        (maps, {"channels": 1}, r"takes \(None, 32, 32, 1\)\. Expected one input of square RGB images"),
    ],
    ids=["no maps", "grey"],
)
def test_a_model_that_is_no_image_network_is_refused_with_the_reason(build, settings, message):
    with pytest.raises(InvalidWeights, match=message):
        own(build, **settings).build()


LAMBDA = {"class_name": "__lambda__", "config": {"value": "x"}}


@pytest.mark.parametrize(
    ("module", "name", "settings"),
    [
        ("keras.layers", "Lambda", {"function": LAMBDA}),
        ("keras.layers", "TorchModuleWrapper", {"module": "gASVAAAAAAAAAACMAm9zlIwGc3lzdGVtlJOULg=="}),
        ("keras.utils", "get_file", {"fname": "x", "origin": "file:///etc/passwd"}),
        ("subprocess", "Popen", {"args": ["touch", "ran"]}),
    ],
)
def test_safe_mode_of_the_locked_keras_lets_no_known_attack_through(module, name, settings):
    own(maps)
    with zipfile.ZipFile("mine.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for is_nested in (False, True):
        config = json.loads(members["config.json"])
        layer = config["config"]["layers"][1]
        attack = {"module": module, "class_name": name, "config": settings}
        (layer["config"] if is_nested else layer).update({"kernel_regularizer": attack} if is_nested else attack)
        with zipfile.ZipFile("mine.keras", "w") as archive:
            for member, contents in {**members, "config.json": json.dumps(config)}.items():
                archive.writestr(member, contents)
        with pytest.raises(InvalidWeights, match=r"mine\.keras cannot be loaded .*must not bring code"):
            choose("mine.keras").build()
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("absent.keras", {}, InvalidWeights, r"backbone\.name: absent\.keras does not exist"),
        ("../mine.keras", {}, InvalidParams, r"backbone\.name: expected a path inside the project"),
        ("mine.keras", {"weights": "imagenet"}, InvalidParams, r"backbone\.weights: expected own.*'imagenet'"),
    ],
)
def test_a_setting_that_does_not_suit_a_file_is_refused_by_its_key(name, settings, error, message):
    own(maps)
    with pytest.raises(error, match=message):
        choose(name, **settings)
