"""A sweep over heads with a hidden layer: all trained at once against one Keras fit after the other.

    python -m benchmarks.heads [--images 10000] [--settings 32] [--quick]

The features are random, 1,280 numbers in ten classes that overlap: seconds do not depend on whose photos they are. Both
sides have the same settings, batches, epochs and early stopping on val; the baseline is `keras.Model.fit`, once for
each setting, in a process that has Keras loaded. Losses on val are compared as well: it is the same training.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from regraft.config import TrainHead
from regraft.features.rows import FileRows, OpenFile
from regraft.features.table import Features
from regraft.params_file import load_params
from regraft.training.batched_heads import HeadSettings
from regraft.training.compared import Rows
from regraft.training.heads import settings_of
from regraft.training.keras_models import start_keras
from regraft.training.keras_network import build_head
from regraft.training.sweep import train_heads
from tests.support.in_keras import compile_classifier
from tests.support.machine import describe_machine
from tests.support.pipeline import ROOT

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow prints a page about itself otherwise
_DIM, _CLASSES, _VAL_SHARE = 1280, 10, 0.15
_SWEEP = {
    "learning_rate": [0.0003, 0.001, 0.003, 0.01],
    "weight_decay": [0.0001, 0.01],
    "dropout": [0.0, 0.3],
    "label_smoothing": [0.0, 0.1],
}


def measure(images: int, count: int, *, rounds: int) -> dict[str, Any]:
    """Train `count` settings on the features of `images` images both ways."""
    config = TrainHead.model_validate(
        load_params(ROOT / "params.yaml").train_head.model_dump() | _SWEEP | {"kind": "mlp", "learning_curve": []}
    )
    sweep = settings_of(config)[:count]
    with tempfile.TemporaryDirectory(prefix="regraft-heads-") as temporary:
        features = _random_features(Path(temporary, "features"), images)
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            trained = train_heads(Rows.of(features), sweep, config, seed=0, on_epoch=lambda _: None)
            seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        losses = [_fit(features, settings, config) for settings in sweep]
        keras_seconds = time.perf_counter() - start
    own = statistics.median(seconds)
    return {
        "images": images,
        "settings": len(sweep),
        "sweep_seconds": round(own, 2),
        "keras_seconds": round(keras_seconds, 1),
        "speedup": round(keras_seconds / own, 1),
        "epochs": sum(head.curve[-1].epoch for head in trained),
        "mean_val_log_loss": round(float(np.mean([head.best.val.log_loss for head in trained])), 4),
        "keras_mean_val_log_loss": round(float(np.mean(losses)), 4),
    }


def _random_features(path: Path, images: int) -> Features:
    """Return features of classes that overlap, not negative and half of them zero, like those of a ReLU network."""
    random = np.random.default_rng(0)
    class_indices = random.integers(_CLASSES, size=images).astype(np.int32)
    centres = random.normal(0, 0.08, (_CLASSES, _DIM))
    values = np.maximum(random.normal(centres[class_indices], 1), 0).astype(np.float32)
    path.write_bytes(values.tobytes())
    is_val = np.arange(images) < _VAL_SHARE * images
    return Features(
        digests=[f"{number:064x}" for number in range(images)],
        views=np.zeros(images, np.int16),
        splits=np.where(is_val, "val", "train"),
        class_indices=class_indices,
        class_names=[str(index) for index in range(_CLASSES)],
        namespace="random",
        dim=_DIM,
        rows=FileRows(OpenFile(path), np.arange(images) * _DIM * values.itemsize, _DIM),
    )


def _fit(features: Features, settings: HeadSettings, config: TrainHead) -> float:
    """Train one head as one would in Keras; return its lowest cross-entropy on val."""
    import keras

    start_keras(0)
    head = build_head(features.dim, _CLASSES, settings)
    compile_classifier(
        head,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        label_smoothing=settings.label_smoothing,
    )
    (train, train_classes), (val, val_classes) = features.of("train"), features.of("val")
    targets = np.eye(_CLASSES, dtype=np.float32)
    # val_loss would be smoothed as well; the metric is the plain cross-entropy.
    head.compile(head.optimizer, head.loss, metrics=[keras.metrics.CategoricalCrossentropy(name="plain")])
    stop = keras.callbacks.EarlyStopping("val_plain", patience=config.patience, mode="min")
    history = head.fit(
        train,
        targets[train_classes],
        validation_data=(val, targets[val_classes]),
        batch_size=config.batch_size,
        epochs=config.epochs,
        callbacks=[stop],
        verbose=0,
    )
    return min(history.history["val_plain"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.heads", description="A sweep over heads at once, against one Keras fit each."
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--settings", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="1,000 images, four settings")
    arguments = parser.parse_args()
    images, count, rounds = (1000, 4, 1) if arguments.quick else (arguments.images, arguments.settings, 3)
    result = measure(images, count, rounds=rounds)
    print(describe_machine())
    print(
        f"{result['settings']} heads on {result['images']} x {_DIM} features: "
        f"{result['sweep_seconds']} s at once, {result['keras_seconds']} s in Keras one by one: {result['speedup']}x"
    )
    print(
        f"mean cross-entropy on val: {result['mean_val_log_loss']} at once, "
        f"{result['keras_mean_val_log_loss']} in Keras"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
