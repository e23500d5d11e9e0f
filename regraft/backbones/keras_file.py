"""A user's own Keras model as a backbone."""

import json
import math
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from regraft.backbones.as_backbone import as_backbone
from regraft.backbones.keras_archive import CONFIG, checked_copy, refusal
from regraft.errors import InvalidParams, InvalidWeights

if TYPE_CHECKING:
    import keras

SUFFIX = ".keras"
_LARGEST = 2048  # pixels of a side; an image of that size takes 50 MB as float32


def checked_path(name: str) -> Path:
    """Return the path that `backbone.name` gives.

    Raises:
        InvalidParams: it leaves the project's folder.
        InvalidWeights: there is no such file.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise InvalidParams(
            f"backbone.name: expected a path inside the project folder, relative to it. Received: {name!r}."
        )
    if not Path(path).is_file():
        raise InvalidWeights(f"backbone.name: {name} does not exist. Expected a model that Keras saved as {SUFFIX}.")
    return Path(path)


def image_size_of(path: Path) -> int | None:
    """Return the side of the square images that a model takes, in pixels; None if it takes any size."""
    return _size(_load(path), path)


def build_from_file(path: Path, image_size: int, preprocessing: str, weights: Path | None) -> "keras.Model":
    """Return the model up to its pooled features, with the weights in the file.

    Input `image`: float32, shape (n, image_size, image_size, 3), RGB values 0 to 255. Output `features`: float32, shape
    (n, feature_dim): feature maps are averaged, and dense layers at the end are taken off.

    Args:
        path: of the model.
        image_size: side in pixels; the model's own, if it has one.
        preprocessing: one of `preprocessing.MODES`, in front of the model.
        weights: the same file.

    Raises:
        InvalidParams: the model takes images of another size.
        InvalidWeights: the file cannot be loaded without running code of its own, or is no image network.
    """
    model = _load(path)
    size = _size(model, path)
    if size not in (None, image_size):
        raise InvalidParams(
            f"backbone.image_size: {path} takes {size} pixels. Expected auto or {size}. Received: {image_size}."
        )
    try:
        return as_backbone(model, image_size, preprocessing, path.stem)
    except _wrong_config() as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidWeights(f"{path} cannot be taken apart into layers ({reason}).") from None


def _load(path: Path) -> "keras.Model":
    import keras

    with checked_copy(path) as (copy, size_of_numbers):
        try:
            _check_size(copy, size_of_numbers)
            return keras.saving.load_model(copy, compile=False, safe_mode=True)
        except _wrong_config() as error:
            raise refusal(path, error) from None


def _check_size(copy: Path, size_of_numbers: int) -> None:
    """Raise ValueError if the network has more weights than the file has numbers: its layers may claim any size."""
    import keras
    from keras.src.backend.common import global_state

    with zipfile.ZipFile(copy) as archive:
        config = json.loads(archive.read(CONFIG))
    noted = "uninitialized_variables"  # where Keras lists weights whose shape is known and that are not made yet
    before = global_state.get_global_attribute(noted) or []
    global_state.set_global_attribute(noted, [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            keras.saving.deserialize_keras_object(config, safe_mode=True)
        needed = sum(math.prod(variable.shape) for variable in global_state.get_global_attribute(noted) or [])
    finally:
        global_state.set_global_attribute(noted, before)
    if needed > size_of_numbers:  # a number has a byte at least
        raise ValueError(f"its layers have {needed:,} weights, and the file has numbers of {size_of_numbers:,} bytes")


def _wrong_config() -> tuple[type[Exception], ...]:
    """What Keras and TensorFlow raise where a config or its weights are not as they expect."""
    import tensorflow as tf

    python = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, OSError)
    return (*python, RuntimeError, TypeError, ValueError, tf.errors.OpError)


def _size(model: "keras.Model", path: Path) -> int | None:
    shape = getattr(model, "input_shape", None)
    if not (isinstance(shape, tuple) and len(shape) == 4 and shape[3] == 3 and shape[1] == shape[2]):
        raise InvalidWeights(f"{path} takes {shape}. Expected one input of square RGB images: (None, side, side, 3).")
    if shape[1] is not None and shape[1] > _LARGEST:
        raise InvalidWeights(f"{path} takes images of {shape[1]} pixels. Expected at most {_LARGEST}.")
    return shape[1]
