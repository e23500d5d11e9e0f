"""Keras, made repeatable: seeds, the training loop of fine-tuning, and files whose bytes follow from the weights."""

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.files import replacing
from regraft.metrics import Score

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

    # Layer names are numbered per process otherwise. Python collects the garbage when it is time; here it took 0.4 s.
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def compile_classifier(
    model: "keras.Model",
    *,
    learning_rate: object,
    weight_decay: float,
    label_smoothing: float,
) -> None:
    """Compile for cross-entropy with AdamW; biases and BatchNorm are not decayed."""
    import keras

    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
        jit_compile=False,  # XLA makes convolutions on the CPU many times slower
    )


def train(
    model: "keras.Model",
    batches: Any,
    score_on_val: Callable[[], Score],
    *,
    epochs: int,
    patience: int,
    is_better: Callable[[Score, Score], bool],
    on_epoch: Callable[[Epoch], None],
) -> tuple[list[Epoch], Epoch]:
    """Train a compiled model and leave the weights of its best epoch in it.

    Args:
        model: its outputs are probabilities, shape (n, num_classes).
        batches: what `model.fit` takes: one pass over the training images.
        score_on_val: scores the model as it is.
        epochs: passes at most.
        patience: stop after so many epochs without a better one.
        is_better: whether the first score is better than the second.
        on_epoch: called after each epoch.

    Returns:
        The learning curve, starting with epoch 0 (before training), and its best epoch.
    """
    import keras

    curve = [Epoch(0, None, score_on_val())]
    best, best_weights = curve[0], model.get_weights()

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            nonlocal best, best_weights
            curve.append(Epoch(epoch + 1, float(logs["loss"]), score_on_val()))
            on_epoch(curve[-1])
            if is_better(curve[-1].val, best.val):
                best, best_weights = curve[-1], model.get_weights()
            if curve[-1].epoch - best.epoch >= patience:
                model.stop_training = True

    model.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[Watch()])
    model.set_weights(best_weights)
    return curve, best


def batches_of(
    load: Callable[[np.ndarray, int], np.ndarray],
    class_indices: np.ndarray,
    *,
    num_classes: int,
    batch_size: int,
    seed: int,
) -> Any:
    """Return a `keras.utils.PyDataset` that visits every image once per epoch in a new order that follows from `seed`.

    Args:
        load: returns the inputs of images by their positions, in an epoch (0, 1, ...): float32, shape (n, ...).
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
            self._epoch = 0

        def __len__(self) -> int:
            return -(-len(class_indices) // batch_size)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            chosen = np.sort(self._order[index * batch_size : (index + 1) * batch_size])
            return load(chosen, self._epoch), targets[class_indices[chosen]]

        def on_epoch_end(self) -> None:
            self._epoch += 1
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
