"""Keras, made repeatable: seeds, the training loop of both phases, and files whose bytes follow from the weights."""

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.files import replacing
from regraft.metrics import Score, score

if TYPE_CHECKING:
    import keras

_PREDICT_BATCH = 128  # images in memory at a time
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training images; epoch 0 is before the first."""

    epoch: int
    train_loss: float | None
    val: Score

    def as_report(self, *, epochs_run: int) -> dict[str, Any]:
        """Return the JSON report of a training whose best epoch this is."""
        return {"val": asdict(self.val), "best_epoch": self.epoch, "epochs_run": epochs_run}

    def as_row(self) -> dict[str, float | int | None]:
        """Return the line of the learning curve."""
        return {
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            "val_log_loss": self.val.log_loss,
            "val_accuracy": self.val.accuracy,
        }


def start_keras(seed: int) -> None:
    """Make what follows depend on `seed` alone, whatever this process did before."""
    import keras
    import tensorflow as tf

    keras.backend.clear_session()  # layer names are numbered per process otherwise
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def compile_classifier(
    model: "keras.Model", *, learning_rate: object, weight_decay: float, label_smoothing: float
) -> None:
    """Compile for cross-entropy with AdamW; biases and BatchNorm are not decayed."""
    import keras

    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    # XLA makes convolutions on the CPU many times slower.
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing), jit_compile=False)


def train(
    model: "keras.Model",
    batches: Any,
    val: tuple[Any, np.ndarray],
    *,
    epochs: int,
    patience: int,
    is_better: Callable[[Score, Score], bool],
    on_epoch: Callable[[Epoch], None],
) -> tuple[list[Epoch], Epoch]:
    """Train a compiled model and leave the weights of its best epoch in it.

    Args:
        model: its outputs are probabilities, shape (n, num_classes).
        batches: a `keras.utils.PyDataset` of the training images.
        val: what `model.predict` takes, and the true classes, shape (n,).
        epochs: passes at most.
        patience: stop after so many epochs without a better one.
        is_better: whether the first score is better than the second.
        on_epoch: called after each epoch.

    Returns:
        The learning curve, starting with epoch 0 (before training), and its best epoch.
    """
    inputs, class_indices = val
    curve = [Epoch(0, None, score(class_indices, model.predict(inputs, verbose=0)))]
    best, best_weights = curve[0], model.get_weights()
    for number in range(1, epochs + 1):
        history = model.fit(batches, initial_epoch=number - 1, epochs=number, shuffle=False, verbose=0)
        epoch = Epoch(number, history.history["loss"][0], score(class_indices, model.predict(inputs, verbose=0)))
        curve.append(epoch)
        on_epoch(epoch)
        if is_better(epoch.val, best.val):
            best, best_weights = epoch, model.get_weights()
        if number - best.epoch >= patience:
            break
    model.set_weights(best_weights)
    return curve, best


def batches_of(
    load: Callable[[np.ndarray], np.ndarray], class_indices: np.ndarray, *, num_classes: int, batch_size: int, seed: int
) -> Any:
    """Return a `keras.utils.PyDataset` that visits every image once per epoch in a new order that follows from `seed`.

    Args:
        load: returns the inputs of images by their position, shape (n, ...), float32.
        class_indices: of all images, shape (images,).
        num_classes: width of the one-hot targets.
        batch_size: images per step; the last batch may be smaller.
        seed: of the order.
    """
    import keras

    targets = np.eye(num_classes, dtype=np.float32)

    class Batches(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self._random = np.random.default_rng(seed)
            self._order = self._random.permutation(len(class_indices))

        def __len__(self) -> int:
            return -(-len(class_indices) // batch_size)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            chosen = np.sort(self._order[index * batch_size : (index + 1) * batch_size])
            return load(chosen), targets[class_indices[chosen]]

        def on_epoch_end(self) -> None:
            self._order = self._random.permutation(len(class_indices))

    return Batches()


def batches_in_order(load: Callable[[np.ndarray], np.ndarray], count: int) -> Any:
    """Return a `keras.utils.PyDataset` for `predict`: all images in order, a batch in memory at a time."""
    import keras

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return -(-count // _PREDICT_BATCH)

        def __getitem__(self, index: int) -> tuple[np.ndarray]:
            return (load(np.arange(index * _PREDICT_BATCH, min(count, (index + 1) * _PREDICT_BATCH))),)

    return Batches()


def save_model(path: Path, model: "keras.Model") -> None:
    """Save a model in Keras' own format; equal models give equal bytes.

    Keras writes the time and the memory addresses of objects into the file. They are replaced, so that DVC sees a model
    that came out the same as the same.
    """
    with replacing(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
        metadata = json.loads(members["metadata.json"])
        metadata.pop("date_saved", None)
        members["metadata.json"] = json.dumps(metadata, sort_keys=True).encode()
        members["config.json"] = _with_numbered_objects(members["config.json"])
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, contents in members.items():
                archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), contents)


def _with_numbered_objects(config: bytes) -> bytes:
    """Number shared objects in the order in which they appear, in place of their addresses."""
    numbers: dict[bytes, bytes] = {}

    def numbered(match: re.Match[bytes]) -> bytes:
        return match[1] + numbers.setdefault(match[2], str(len(numbers)).encode())

    return re.sub(rb'("shared_object_id": )(\d+)', numbered, config)


def load_model(path: Path) -> "keras.Model":
    """Load what `save_model` saved, in safe mode: a file cannot bring code of its own."""
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=True)
