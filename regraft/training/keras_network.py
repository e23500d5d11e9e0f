"""Heads and whole networks as Keras models: to train them further, to convert them, and to give them away."""

from typing import TYPE_CHECKING

from regraft.backbones.catalogue import Backbone
from regraft.training.batched_heads import HeadSettings
from regraft.training.layers import join
from regraft.training.network_file import Head, Network, load_into

if TYPE_CHECKING:
    import keras


def build_head(feature_dim: int, num_classes: int, settings: HeadSettings) -> "keras.Model":
    """Return the head with random weights: linear, or with one hidden layer.

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


def to_keras(head: Head) -> "keras.Model":
    """Return a trained head as a Keras model."""
    model = build_head(head.feature_dim, head.num_classes, head.settings)
    model.set_weights(head.weights)
    return model


def build_network(backbone: Backbone, network: Network) -> "keras.Model":
    """Return a trained network as a Keras model: prepared float32 RGB 0 to 255 in, probabilities out.

    Raises:
        RegraftError: the network was trained on another backbone.
    """
    model = join(backbone, to_keras(network.head))
    load_into(model, network)
    return model
