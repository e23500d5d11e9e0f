"""A user's own Keras model as a backbone."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from regraft.backbones.as_backbone import as_backbone
from regraft.errors import InvalidParams, InvalidWeights

if TYPE_CHECKING:
    import keras

SUFFIX = ".keras"


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
    except (ValueError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidWeights(f"{path} cannot be taken apart into layers ({reason}).") from None


def _load(path: Path) -> "keras.Model":
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidWeights(
            f"backbone.name: {path} cannot be loaded ({reason}). Expected a file saved by Keras 3 as {SUFFIX}, without "
            f"Lambda layers and classes of its own: a model file must not bring code."
        ) from None


def _size(model: "keras.Model", path: Path) -> int | None:
    shape = getattr(model, "input_shape", None)
    if not (isinstance(shape, tuple) and len(shape) == 4 and shape[3] == 3 and shape[1] == shape[2]):
        raise InvalidWeights(f"{path} takes {shape}. Expected one input of square RGB images: (None, side, side, 3).")
    return shape[1]
