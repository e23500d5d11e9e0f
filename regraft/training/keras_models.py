"""Keras, made repeatable: seeds, and files whose bytes follow from the weights."""

import json
import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.files import reading, replacing
from regraft.training.metrics import Score

if TYPE_CHECKING:
    import keras

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training images; epoch 0 is before the first."""

    epoch: int
    train_loss: float | None
    val: Score

    def as_row(self) -> dict[str, float | int | None]:
        """Return the line of the learning curve."""
        figures = {f"val_{name}": value for name, value in asdict(self.val).items()}
        return {"epoch": self.epoch, "train_loss": self.train_loss, **figures}


def start_keras(seed: int) -> None:
    """Make what follows depend on `seed` alone, whatever this process did before."""
    import keras
    import tensorflow as tf

    # Layer names are numbered per process otherwise. Python collects the garbage when it is time; here it took 0.4 s.
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


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
    """Load what `save_model` saved, in safe mode: a file cannot bring code of its own.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is damaged.
    """
    import keras

    with reading(path, "a model that Keras saved"):
        with zipfile.ZipFile(path) as archive:
            # Keras reads the weights without comparing their checksum.
            if (member := archive.testzip()) is not None:
                raise ValueError(f"{member} with another checksum")
        return keras.saving.load_model(path, compile=False, safe_mode=True)
