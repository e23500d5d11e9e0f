"""Networks that tests train: a backbone with a head, and one of a few numbers that learns within a second."""

from pathlib import Path

import keras
import numpy as np
from keras import layers

from regraft.backbones.catalogue import Backbone
from regraft.training.keras_network import join, to_keras
from regraft.training.network_file import read_head, start_keras
from regraft.training.trainer import Images, Trainer

VALUES = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
CLASSES = (VALUES[:, 0] > 0).astype(int) + (VALUES[:, 1] > 0)  # three classes that can be learnt


def load_joined(backbone: Backbone, head: Path) -> keras.Model:
    """Return backbone and head as one network; the head comes from a file, because `join` shares its layers."""
    start_keras(0)
    return join(backbone, to_keras(read_head(head)))


def build_small() -> keras.Model:
    """Return a network for `VALUES`, with random weights and dropout."""
    image = keras.Input((6,))
    hidden = layers.Dropout(0.3)(layers.Dense(8, activation="relu")(image))
    return keras.Model(image, layers.Softmax()(layers.Dense(3)(hidden)))


def read_values(batches, epoch: int):
    """Yield the values of each batch, the same ones in every epoch."""
    return (VALUES[chosen] for chosen in batches)


IMAGES = Images(read_values, CLASSES)


def trainer_of(model: keras.Model, *, prior: np.ndarray | None = None) -> Trainer:
    """Return a trainer of everything that is trainable."""
    return Trainer(model, dtype="float32", prior=prior)


def weights_in(model: keras.Model) -> bytes:
    """Return all weights of a network as bytes."""
    return b"".join(np.asarray(weight).tobytes() for weight in model.get_weights())
