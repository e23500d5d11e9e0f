"""What was trained, in files, and back in Keras."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from regraft.core.errors import Damaged, RegraftError
from regraft.training.batched_heads import HeadSettings
from regraft.training.network_file import (
    Head,
    Network,
    load_into,
    network_of,
    read_head,
    read_network,
    weights_of,
    write_head,
    write_network,
)

LINEAR = HeadSettings(0, "relu", "adamw", 0.2, 0.001, 0.0, 0.0)


def head_of(settings: HeadSettings = LINEAR, *, seed: int = 0) -> Head:
    random = np.random.default_rng(seed)
    widths = [6, *([settings.hidden_units] if settings.hidden_units else []), 3]
    shapes = [shape for inputs, outputs in pairwise(widths) for shape in ((inputs, outputs), outputs)]
    return Head(settings, [random.normal(size=shape).astype(np.float32) for shape in shapes])


def network_with(weights: dict[str, np.ndarray]) -> Network:
    return Network("top" if weights else "head", head_of(), weights)


def assert_same(one: Head, other: Head) -> None:
    assert one.settings == other.settings
    assert [array.tolist() for array in one.weights] == [array.tolist() for array in other.weights]


@pytest.mark.parametrize("settings", [LINEAR, replace(LINEAR, hidden_units=5, activation="silu")])
def test_a_head_is_read_as_it_was_written(tmp_path, settings):
    head = head_of(settings)
    write_head(tmp_path / "head.npz", head)
    read = read_head(tmp_path / "head.npz")
    assert_same(read, head)
    assert (read.feature_dim, read.num_classes) == (6, 3)


@pytest.mark.parametrize(
    "weights", [{}, {"block/kernel": np.ones((2, 3), np.float32), "../a\0/bias": np.zeros(3, "f4")}]
)
def test_a_network_is_read_as_it_was_written(tmp_path, weights):
    write_network(tmp_path / "model.npz", network_with(weights))
    read = read_network(tmp_path / "model.npz")
    assert_same(read.head, head_of())
    assert read.trained == ("top" if weights else "head")
    assert {path: array.tolist() for path, array in read.weights.items()} == {k: v.tolist() for k, v in weights.items()}


def test_equal_weights_give_equal_bytes_whatever_their_order(tmp_path):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    one = {"a/kernel": kernel, "b/bias": np.ones(2, np.float32)}
    other = {"b/bias": np.ones(2, np.float32), "a/kernel": np.asfortranarray(kernel)}
    write_network(tmp_path / "one.npz", network_with(one))
    write_network(tmp_path / "other.npz", network_with(other))
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()
    write_network(tmp_path / "other.npz", network_with(one | {"b/bias": np.zeros(2, np.float32)}))
    assert (tmp_path / "one.npz").read_bytes() != (tmp_path / "other.npz").read_bytes()


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "model.npz"
    write_network(path, network_with({"a/kernel": np.ones((2, 3), np.float32)}))
    whole = path.read_bytes()
    for contents in (whole[:-1], whole[:100] + b"x" + whole[101:], b""):
        path.write_bytes(contents)
        with pytest.raises(Damaged, match=r"model\.npz is damaged"):
            read_network(path)


def test_a_head_is_no_network_and_the_other_way_round(tmp_path):
    write_head(tmp_path / "head.npz", head_of())
    with pytest.raises(Damaged, match="a network that was trained"):
        read_network(tmp_path / "head.npz")
    write_head(tmp_path / "bad.npz", Head(replace(LINEAR, hidden_units=5), head_of().weights))
    with pytest.raises(Damaged, match="a head that was trained"):
        read_head(tmp_path / "bad.npz")


def joined(name: str = "block"):
    import keras
    from keras import layers

    from regraft.training.keras_network import build_head

    image = keras.Input((4,))
    output = layers.BatchNormalization(name="norm")(layers.Dense(6, name=name)(image))
    for layer in build_head(6, 3, LINEAR).layers:
        output = layer(output)
    return keras.Model(image, output, name="small")


def test_a_network_in_keras_survives_the_way_through_the_file(tmp_path):
    model = joined()
    pretrained = weights_of(model)
    assert set(pretrained) == {"block/kernel", "block/bias", "norm/gamma", "norm/beta"} | {
        "norm/moving_mean",
        "norm/moving_variance",
    }
    model.get_layer("norm").gamma.assign(np.full(6, 0.5))
    model.get_layer("head_logits").kernel.assign(np.full((6, 3), 0.25))
    network = network_of(model, LINEAR, "top", pretrained)
    assert set(network.weights) == {"norm/gamma"}  # nothing else differs from what it was
    write_network(tmp_path / "model.npz", network)
    other = joined()
    for path, variable in zip(pretrained, other.weights, strict=False):
        variable.assign(pretrained[path])
    load_into(other, read_network(tmp_path / "model.npz"))
    assert [weight.tolist() for weight in other.get_weights()] == [weight.tolist() for weight in model.get_weights()]


def test_weights_of_another_backbone_are_refused_and_change_nothing():
    model = joined()
    network = network_of(model, LINEAR, "top", {path: value + 1 for path, value in weights_of(model).items()})
    other = joined("another")
    before = other.get_weights()
    with pytest.raises(RegraftError, match="do not fit the network small"):
        load_into(other, network)
    with pytest.raises(RegraftError, match="4 arrays of a head"):
        load_into(model, Network("head", head_of(replace(LINEAR, hidden_units=5)), {}))
    assert all(np.array_equal(one, two) for one, two in zip(before, other.get_weights(), strict=True))
