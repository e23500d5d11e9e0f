"""What was trained, as arrays: the head, and of the backbone those weights that differ from the pretrained ones.

The files are sealed arrays with a JSON of facts; equal weights give equal bytes. No framework is needed to read them.
The rest of the network is the backbone as `choose_backbone` gives it, so `load_into` needs a model that begins with it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from pydantic import TypeAdapter

from regraft.core.errors import RegraftError
from regraft.core.files import reading
from regraft.core.sealed import read_arrays, write_arrays
from regraft.training.batched_heads import HeadSettings

if TYPE_CHECKING:
    import keras

Trained = Literal["head", "top", "all"]  # the head alone, what lies above the cut, or the whole network

HEAD_LAYERS = ("head_hidden", "head_logits")  # names of those with weights; a linear head has the second only
_FACTS = "facts"
_SETTINGS = TypeAdapter(HeadSettings)
_ACTIVATIONS = {
    "relu": lambda values: np.maximum(values, 0),
    "tanh": np.tanh,
    "silu": lambda values: values * (0.5 + 0.5 * np.tanh(0.5 * values)),  # x * sigmoid(x); this form cannot overflow
}


@dataclass(frozen=True, slots=True)
class Head:
    """A trained classifier of pooled features."""

    settings: HeadSettings
    weights: list[np.ndarray]  # float32: kernel (inputs, outputs) and bias (outputs,), layer by layer

    @property
    def feature_dim(self) -> int:
        """How many features of an image it takes."""
        return len(self.weights[0])

    @property
    def num_classes(self) -> int:
        """How many probabilities it gives."""
        return len(self.weights[-1])

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return what it says of images: features float32 of shape (n, feature_dim), to (n, num_classes)."""
        *hidden, logits, bias = self.weights
        values = features
        if hidden:
            values = _ACTIVATIONS[self.settings.activation](values @ hidden[0] + hidden[1])
        values = values @ logits + bias
        shares = np.exp(values - values.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def rescaled(self, temperature: float, shift: Sequence[float] | np.ndarray | None = None) -> "Head":
        """Return the head whose logits are z / temperature + shift, for logits z of this one.

        Args:
            temperature: above 0; with 1 and no shift the head is what it was, to the bit.
            shift: of each logit, shape (num_classes,).
        """
        *before, kernel, bias = self.weights
        bias = bias / np.float32(temperature) + np.asarray(0 if shift is None else shift, np.float32)
        return Head(self.settings, [*before, kernel / np.float32(temperature), bias.astype(np.float32)])


@dataclass(frozen=True, slots=True)
class Network:
    """A trained network: the pretrained backbone, but for some weights, and a head."""

    trained: Trained
    head: Head
    weights: dict[str, np.ndarray]  # float32, by the path of the Keras variable; none where only the head was trained


def write_head(path: Path, head: Head) -> None:
    """Write a head."""
    write_arrays(path, _facts({}, head) | _of_head(head))


def read_head(path: Path) -> Head:
    """Return what `write_head` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is damaged.
    """
    arrays = read_arrays(path)
    with reading(path, "a head that was trained"):
        return _head(arrays, json.loads(arrays[_FACTS].tobytes()))


def write_network(path: Path, network: Network) -> None:
    """Write a network, without the weights that are those of the pretrained backbone."""
    paths = sorted(network.weights)
    weights = {f"weight{number}": _plain(network.weights[each]) for number, each in enumerate(paths)}
    facts = {"trained": network.trained, "paths": paths}
    write_arrays(path, _facts(facts, network.head) | _of_head(network.head) | weights)


def read_network(path: Path) -> Network:
    """Return what `write_network` wrote; errors as of `read_head`."""
    arrays = read_arrays(path)
    with reading(path, "a network that was trained"):
        facts = json.loads(arrays[_FACTS].tobytes())
        if facts["trained"] not in get_args(Trained):
            raise ValueError(f"trained: {facts['trained']}")
        weights = {each: arrays[f"weight{number}"] for number, each in enumerate(facts["paths"])}
        return Network(facts["trained"], _head(arrays, facts), weights)


def weights_of(model: "keras.Model") -> dict[str, np.ndarray]:
    """Return copies of all weights of a network but those of its head, by the path of the Keras variable."""
    return {path: np.array(variable.numpy()) for path, variable in _variables(model).items()}


def network_of(
    model: "keras.Model", settings: HeadSettings, trained: Trained, pretrained: dict[str, np.ndarray]
) -> Network:
    """Return what was trained of a Keras model.

    Args:
        model: from `layers.join`.
        settings: of its head.
        trained: what was trained of it.
        pretrained: from `weights_of` of the model as `join` gave it; a weight that is the same to the bit is left out.
    """
    head = [np.array(weight) for layer in _head_layers(model) for weight in layer.get_weights()]
    changed = {path: now for path, now in weights_of(model).items() if not np.array_equal(now, pretrained[path])}
    return Network(trained, Head(settings, head), changed)


def load_into(model: "keras.Model", network: Network) -> None:
    """Set the weights of a Keras model, from `layers.join` with a head of the same shape, to those of a network.

    Raises:
        RegraftError: the network was trained on another backbone, or its head has another shape.
    """
    variables = _variables(model)
    head = [variable for layer in _head_layers(model) for variable in layer.weights]
    pairs = [(path, variables.get(path), value) for path, value in network.weights.items()]
    pairs += [(each.path, each, value) for each, value in zip(head, network.head.weights, strict=False)]
    wrong = [path for path, variable, value in pairs if variable is None or tuple(variable.shape) != value.shape]
    if wrong or len(head) != len(network.head.weights):
        raise RegraftError(
            f"The trained weights do not fit the network {model.name}: expected those of a training that started from "
            f"it, with a head of {len(head)} arrays; found {len(network.head.weights)} arrays of a head, and others of "
            f"{', '.join(wrong[:3]) or 'the right shapes'}. Run `dvc repro`: it trains anew what params.yaml changed."
        )
    for _, variable, value in pairs:
        assert variable is not None  # it would be wrong
        variable.assign(value)


def _variables(model: "keras.Model") -> dict[str, "keras.Variable"]:
    """Return the weights of a network outside its head; not the states of random generators, which are no weights."""
    head = {id(variable) for layer in _head_layers(model) for variable in layer.weights}
    return {variable.path: variable for variable in model.weights if id(variable) not in head}


def _head_layers(model: "keras.Model") -> list["keras.Layer"]:
    return [layer for layer in model.layers if layer.name in HEAD_LAYERS]


def _facts(facts: dict[str, Any], head: Head) -> dict[str, np.ndarray]:
    text = json.dumps({**facts, "head": asdict(head.settings)}, sort_keys=True, ensure_ascii=True)
    return {_FACTS: np.frombuffer(text.encode(), np.uint8)}


def _of_head(head: Head) -> dict[str, np.ndarray]:
    return {f"head{number}": _plain(array) for number, array in enumerate(head.weights)}


def _plain(array: np.ndarray) -> np.ndarray:
    """The order in memory would decide the bytes of the file."""
    return np.ascontiguousarray(array, np.float32)


def _head(arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> Head:
    settings = _SETTINGS.validate_python(facts["head"])
    weights = [arrays[f"head{number}"] for number in range(4 if settings.hidden_units else 2)]
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        if kernel.ndim != 2 or bias.shape != kernel.shape[1:]:
            raise ValueError(f"a kernel of shape {kernel.shape} and a bias of shape {bias.shape}")
    return Head(settings, weights)
