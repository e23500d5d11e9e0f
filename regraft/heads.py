"""The head: the new classifier on top of the backbone's pooled features."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from regraft.config import TrainHead
from regraft.features import Features
from regraft.metrics import score
from regraft.networks import Epoch, batches_in_memory, compile_classifier, start_keras, train

if TYPE_CHECKING:
    import keras


def build_head(feature_dim: int, num_classes: int, settings: TrainHead) -> "keras.Model":
    """Return the head with random weights: linear, or with one hidden ReLU layer.

    Input: float32, shape (n, feature_dim). Output `probabilities`: float32, shape (n, num_classes), rows sum to 1.
    """
    import keras
    from keras import layers

    hidden = []
    if settings.hidden_units:
        hidden = [
            layers.Dense(settings.hidden_units, activation="relu", name="head_hidden"),
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


def train_head(
    features: Features, settings: TrainHead, *, seed: int, on_epoch: Callable[[Epoch], None]
) -> tuple["keras.Model", list[Epoch], Epoch]:
    """Train a head on the features of train and return it as it was at its lowest cross-entropy on val.

    Returns:
        The head, its learning curve from epoch 0 (before training) on, and the epoch that was kept.
    """
    start_keras(seed)
    train_values, train_classes = features.of("train")
    val_values, val_classes = features.of("val")
    num_classes = len(features.class_names)
    head = build_head(train_values.shape[1], num_classes, settings)
    batches = batches_in_memory(
        train_values, train_classes, num_classes=num_classes, batch_size=settings.batch_size, seed=seed
    )
    compile_classifier(
        head,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        label_smoothing=settings.label_smoothing,
        steps_per_execution=len(batches),
    )
    curve, best = train(
        head,
        batches,
        lambda: score(val_classes, np.asarray(head(val_values, training=False))),
        epochs=settings.epochs,
        patience=settings.patience,
        is_better=lambda new, old: new.log_loss < old.log_loss,
        on_epoch=on_epoch,
    )
    return head, curve, best
