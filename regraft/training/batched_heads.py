"""Heads with a hidden layer, trained side by side: one array holds all kernels, and one matrix product serves them.

Training one head is a few hundred thousand multiply-adds a step, so a framework's calls cost more than its arithmetic.
Here the calls are made once for all heads, a batch is read and dropped out once, and an optimizer's step is some passes
over one array.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Activation = Literal["relu", "silu", "tanh"]
Optimizer = Literal["adamw", "rmsprop", "lbfgs"]  # the last for linear heads

_LEVELS = 2**16  # dropout compares 16 random bits with its rate
_BETA_1, _BETA_2 = 0.9, 0.999  # of Adam: Kingma & Ba, 2015
_RHO = 0.9  # of RMSprop: Tieleman & Hinton, 2012
_EPSILON = np.float32(1e-7)  # of both, as in Keras


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """What tells one head of a sweep from another."""

    hidden_units: int  # of the hidden layer; 0 is a linear head, which no stack trains
    activation: Activation  # of the hidden layer
    optimizer: Optimizer
    dropout: float  # share of inputs of each dense layer dropped while training
    learning_rate: float  # 0 where the optimizer needs none
    weight_decay: float  # decoupled (Loshchilov & Hutter, 2019), on kernels; of a linear head its penalty (`logistic`)
    label_smoothing: float  # share of the target spread over all classes

    @property
    def stack_key(self) -> tuple[int, str, str, float]:
        """Heads with equal keys can share a stack: the same shapes, the same inputs in a step."""
        return self.hidden_units, self.activation, self.optimizer, self.dropout


class Stack:
    """Heads with a hidden layer and one `stack_key`.

    Parameters are float32 of shape (heads, outputs, inputs) and (heads, outputs).

    Args:
        settings: of each head.
        kernels: what every head starts from, of the hidden layer and the logits, float32 of shape (outputs, inputs).
        log_prior: added to the logits while training, float32 of shape (num_classes,); zeros leave them as they are.
    """

    def __init__(self, settings: list[HeadSettings], kernels: list[np.ndarray], log_prior: np.ndarray) -> None:
        self._kernels = [np.repeat(kernel[None], len(settings), axis=0) for kernel in kernels]
        self._biases = [np.zeros((len(settings), len(kernel)), np.float32) for kernel in kernels]
        self._moments = [
            [np.zeros_like(array) for _ in range(2 if settings[0].optimizer == "adamw" else 1)]
            for array in (*self._kernels, *self._biases)
        ]
        self._log_prior = log_prior
        self._steps = 0
        self._dropped_below = round(settings[0].dropout * _LEVELS)
        self._dropout_scale = np.float32(1 / (1 - self._dropped_below / _LEVELS))
        self._set_settings(settings)

    def _set_settings(self, settings: list[HeadSettings]) -> None:
        self._settings = settings
        self._learning_rates = np.array([each.learning_rate for each in settings], np.float32)
        self._decays = np.array([each.weight_decay for each in settings], np.float32)
        self._smoothing = np.array([each.label_smoothing for each in settings], np.float32)[:, None, None]

    def __len__(self) -> int:
        return len(self._settings)

    def step(
        self, inputs: np.ndarray, class_indices: np.ndarray, weights: np.ndarray, bits: dict[int, np.ndarray]
    ) -> np.ndarray:
        """Take one optimizer step on a batch and return each head's summed loss before it, shape (heads,).

        Args:
            inputs: float32, shape (batch, features).
            class_indices: shape (batch,).
            weights: of each image in the loss, float32, shape (batch,).
            bits: from `random_bits`, for the features under 0, for hidden units under their number; of heads that drop
                nothing none is used.
        """
        batch = len(inputs)
        dropped = inputs * self._mask(bits[0]) if self._dropped_below else inputs
        hidden, slope = _activated(self._hidden(dropped), self._settings[0].activation)
        if self._dropped_below:
            mask = self._mask(bits[hidden.shape[2]])[:, None]
            hidden, slope = hidden * mask, slope * mask
        log_probabilities = _log_softmax(self._logits(hidden) + self._log_prior)  # (heads, batch, classes)
        targets = np.broadcast_to(self._smoothing / log_probabilities.shape[2], log_probabilities.shape).copy()
        targets[:, np.arange(batch), class_indices] += 1 - self._smoothing[:, :, 0]
        losses = -np.einsum("hbc,hbc,b->h", targets, log_probabilities, weights)
        errors = np.exp(log_probabilities)
        errors -= targets
        errors *= weights[:, None] / batch
        of_output = np.matmul(errors.transpose(0, 2, 1), hidden.transpose(1, 0, 2))
        of_hidden = np.empty_like(hidden)  # (batch, heads, units), so that the next product is one
        np.matmul(errors, self._kernels[1], out=of_hidden.transpose(1, 0, 2))
        of_hidden *= slope
        of_input = of_hidden.reshape(batch, -1).T @ dropped
        gradients = [of_input, of_output, of_hidden.sum(axis=0), errors.sum(axis=1)]
        self._steps += 1
        parameters = [*self._kernels, *self._biases]
        for parameter, gradient, moments in zip(parameters, gradients, self._moments, strict=True):
            self._update(parameter, gradient.reshape(parameter.shape), moments)
        return losses

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """Return float32 of shape (heads, images, classes); nothing is dropped."""
        hidden, _ = _activated(self._hidden(inputs), self._settings[0].activation)
        return np.exp(_log_softmax(self._logits(hidden)))

    def weights(self, head: int) -> list[np.ndarray]:
        """Return a head's weights as Keras orders them: kernel (inputs, outputs) and bias, layer by layer."""
        layers = zip(self._kernels, self._biases, strict=True)
        return [array for kernel, bias in layers for array in (kernel[head].T.copy(), bias[head].copy())]

    def keep(self, stays: list[bool]) -> None:
        """Let the other heads go."""
        self._kernels, self._biases = ([array[stays] for array in arrays] for arrays in (self._kernels, self._biases))
        self._moments = [[array[stays] for array in arrays] for arrays in self._moments]
        self._set_settings([each for each, stay in zip(self._settings, stays, strict=True) if stay])

    def _mask(self, bits: np.ndarray) -> np.ndarray:
        return (bits >= self._dropped_below) * self._dropout_scale

    def _hidden(self, inputs: np.ndarray) -> np.ndarray:
        """From shape (batch, features) to (batch, heads, outputs): one product for all heads."""
        heads, outputs, features = self._kernels[0].shape
        product = inputs @ self._kernels[0].reshape(heads * outputs, features).T
        return product.reshape(len(inputs), heads, outputs) + self._biases[0]

    def _logits(self, hidden: np.ndarray) -> np.ndarray:
        """From shape (batch, heads, units) to (heads, batch, classes)."""
        return np.matmul(hidden.transpose(1, 0, 2), self._kernels[1].transpose(0, 2, 1)) + self._biases[1][:, None]

    def _update(self, parameter: np.ndarray, gradient: np.ndarray, moments: list[np.ndarray]) -> None:
        """Take the optimizer's step; `gradient` is used up."""
        of_heads = (-1, *[1] * (parameter.ndim - 1))
        if parameter.ndim == 3 and self._decays.any():
            parameter *= (1 - self._learning_rates * self._decays).reshape(of_heads)
        if len(moments) == 2:  # AdamW
            rate = self._learning_rates * np.float32(np.sqrt(1 - _BETA_2**self._steps) / (1 - _BETA_1**self._steps))
            first, second = moments
            first *= np.float32(_BETA_1)
            step = gradient * np.float32(1 - _BETA_1)
            first += step
            gradient *= gradient
            gradient *= np.float32(1 - _BETA_2)
            second *= np.float32(_BETA_2)
            second += gradient
            np.sqrt(second, out=step)
            step += _EPSILON
            np.divide(first, step, out=step)
        else:  # RMSprop
            rate, (second,) = self._learning_rates, moments
            second *= np.float32(_RHO)
            second += np.float32(1 - _RHO) * gradient * gradient
            step = gradient / np.sqrt(second + _EPSILON)
        step *= rate.reshape(of_heads)
        parameter -= step


def glorot_uniform(random: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    """Return a kernel to start from, float32 of shape (outputs, inputs): Glorot & Bengio, 2010, equation 16."""
    limit = np.sqrt(6 / (inputs + outputs))
    return random.uniform(-limit, limit, (outputs, inputs)).astype(np.float32)


def random_bits(random: np.random.Generator, batch: int, inputs: int) -> np.ndarray:
    """Return what `Stack.step` drops by, uint16 of shape (batch, inputs)."""
    return random.integers(_LEVELS, size=(batch, inputs), dtype=np.uint16)


def _activated(inputs: np.ndarray, activation: Activation) -> tuple[np.ndarray, np.ndarray]:
    """Return the activation and its derivative."""
    if activation == "relu":
        return np.maximum(inputs, 0), (inputs > 0).astype(np.float32)
    if activation == "tanh":
        outputs = np.tanh(inputs)
        return outputs, 1 - outputs * outputs
    sigmoid = 0.5 + 0.5 * np.tanh(0.5 * inputs)  # of silu, x * sigmoid(x); this form cannot overflow
    return inputs * sigmoid, sigmoid * (1 + inputs * (1 - sigmoid))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
