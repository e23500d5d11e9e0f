"""Trained heads and networks as arrays: the head, and those weights of the backbone that training changed.

The files are sealed arrays with a JSON of settings; equal weights give equal bytes, and no framework is needed to read
them. The other weights are those of the pretrained backbone.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from pydantic import TypeAdapter

from regraft.core.files import reading
from regraft.core.sealed import read_arrays, write_arrays

if TYPE_CHECKING:
    import keras

Trained = Literal["head", "top", "all"]  # the head alone, the layers above the cut, or the whole network
HEAD_LAYERS = ("head_hidden", "head_logits")  # names of those with weights; a linear head has the second only
_FACTS = "facts"


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """The settings of one head of a sweep."""

    hidden_units: int  # of the hidden layer; 0 is a linear head
    activation: Literal["relu"]  # of the hidden layer
    optimizer: Literal["adamw", "rmsprop", "lbfgs"]  # the last for linear heads
    dropout: float  # share of inputs of each dense layer dropped while fine-tuning
    learning_rate: float  # 0 where the optimizer needs none
    weight_decay: float  # of a linear head its penalty (`logistic`)
    label_smoothing: float  # share of the target spread over all classes


@dataclass(frozen=True, slots=True)
class Head:
    """A trained classifier of pooled features."""

    settings: HeadSettings
    weights: list[np.ndarray]  # float32: kernel (inputs, outputs) and bias (outputs,), layer by layer

    @property
    def feature_dim(self) -> int:
        """Number of features that it takes."""
        return len(self.weights[0])

    @property
    def num_classes(self) -> int:
        """Number of probabilities that it returns."""
        return len(self.weights[-1])

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return probabilities, shape (n, num_classes), of features, float32, shape (n, feature_dim)."""
        *hidden, logits, bias = self.weights
        values = np.maximum(features @ hidden[0] + hidden[1], 0) if hidden else features
        values = values @ logits + bias
        shares = np.exp(values - values.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def rescaled(self, temperature: float, shift: Sequence[float] | np.ndarray | None = None) -> "Head":
        """Return the head whose logits are z / temperature + shift, for logits z of this one.

        Args:
            temperature: above 0; with 1 and no shift the weights stay the same to the bit.
            shift: of each logit, shape (num_classes,).
        """
        *before, kernel, bias = self.weights
        bias = bias / np.float32(temperature) + np.asarray(0 if shift is None else shift, np.float32)
        return Head(self.settings, [*before, kernel / np.float32(temperature), bias.astype(np.float32)])


@dataclass(frozen=True, slots=True)
class Network:
    """A trained network: the pretrained backbone with some changed weights, and a head."""

    trained: Trained
    head: Head
    weights: dict[str, np.ndarray]  # float32, by the path of the Keras variable; none where only the head was trained


def write_head(path: Path, head: Head) -> None:
    """Write a head."""
    write_arrays(path, _arrays(head, {}))


def read_head(path: Path) -> Head:
    """Return the head that `write_head` wrote."""
    arrays = read_arrays(path)
    with reading(path, "a head that was trained"):
        return _head(arrays, json.loads(arrays[_FACTS].tobytes()))


def write_network(path: Path, network: Network) -> None:
    """Write a network, without the weights of the pretrained backbone."""
    paths = sorted(network.weights)
    weights = {f"weight{number}": _plain(network.weights[each]) for number, each in enumerate(paths)}
    write_arrays(path, _arrays(network.head, {"trained": network.trained, "paths": paths}) | weights)


def read_network(path: Path) -> Network:
    """Return the network that `write_network` wrote; errors as of `read_head`."""
    arrays = read_arrays(path)
    with reading(path, "a network that was trained"):
        facts = json.loads(arrays[_FACTS].tobytes())
        if facts["trained"] not in get_args(Trained):
            raise ValueError(f"trained: {facts['trained']}")
        weights = {each: arrays[f"weight{number}"] for number, each in enumerate(facts["paths"])}
        return Network(facts["trained"], _head(arrays, facts), weights)


def _arrays(head: Head, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    text = json.dumps({**facts, "head": asdict(head.settings)}, sort_keys=True, ensure_ascii=True)
    weights = {f"head{number}": _plain(array) for number, array in enumerate(head.weights)}
    return {_FACTS: np.frombuffer(text.encode(), np.uint8)} | weights


def _plain(array: np.ndarray) -> np.ndarray:
    """The order in memory would decide the bytes of the file."""
    return np.ascontiguousarray(array, np.float32)


def _head(arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> Head:
    settings = TypeAdapter(HeadSettings).validate_python(facts["head"])
    weights = [arrays[f"head{number}"] for number in range(4 if settings.hidden_units else 2)]
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        if kernel.ndim != 2 or bias.shape != kernel.shape[1:]:
            raise ValueError(f"a kernel of shape {kernel.shape} and a bias of shape {bias.shape}")
    return Head(settings, weights)


def start_keras(seed: int) -> None:
    """Make Keras depend on `seed` alone, whatever this process did before."""
    import keras
    import tensorflow as tf

    # Layer names are numbered per process otherwise. Python collects the garbage when it is time; here it took 0.4 s.
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def build_head(feature_dim: int, num_classes: int, settings: HeadSettings) -> "keras.Model":
    """Return a head with random weights: linear, or with one hidden layer.

    Input: float32, shape (n, feature_dim). Output `probabilities`: float32, shape (n, num_classes), rows sum to 1.
    """
    import keras
    from keras import layers

    hidden = []
    if settings.hidden_units:
        hidden = [
            layers.Dense(settings.hidden_units, activation=settings.activation, name="head_hidden"),
            layers.Dropout(settings.dropout, name="head_hidden_dropout"),
        ]
    return keras.Sequential(
        [
            keras.Input((feature_dim,), name="pooled"),
            layers.Dropout(settings.dropout, name="head_dropout"),
            *hidden,
            layers.Dense(num_classes, name="head_logits"),
            layers.Softmax(name="probabilities"),
        ],
        name="head",
    )
