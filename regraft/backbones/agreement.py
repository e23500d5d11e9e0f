"""Whether a converted graph computes what its Keras model computes: asked once, when it is converted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

from regraft.errors import ExportMismatch

if TYPE_CHECKING:
    import keras

_IMAGES = 8
# float32 through a hundred layers, summed in another order, differs by 1e-5 of the largest value; a wrong layer by 0.1.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Agreement:
    """How closely a graph follows the Keras model that it was converted from."""

    images: int
    largest_difference: float  # of any value, as a share of the largest one of the same output


def agreement_of(model: "keras.Model", graph: onnx.ModelProto) -> Agreement:
    """Compare a graph with its Keras model on images that look like photos: many coarse and few fine contrasts.

    Args:
        model: prepared float32 RGB 0 to 255 in, a list of outputs.
        graph: the same, from uint8.

    Raises:
        ExportMismatch: they differ by more than rounding does.
    """
    images = _images(model.input_shape[1])
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ours: Sequence[np.ndarray] = session.run(None, {session.get_inputs()[0].name: images})  # pyright: ignore
    theirs = model.predict_on_batch(images.astype(np.float32))
    tiny = np.finfo(np.float32).tiny
    shares = [
        np.abs(our - their).max() / max(np.abs(their).max(), tiny) for our, their in zip(ours, theirs, strict=True)
    ]
    largest = float(np.max(shares))
    if not largest <= _TOLERANCE:  # NaN is no agreement
        raise ExportMismatch(
            f"the ONNX graph of the backbone and its Keras model differ by {largest:.2g} of the largest value, over "
            f"{_IMAGES} images; expected {_TOLERANCE:g} at most. This is a defect of the conversion: choose another "
            f"backbone, and please report it with the versions in requirements.lock."
        )
    return Agreement(_IMAGES, float(f"{largest:.1e}"))


def _images(size: int) -> np.ndarray:
    """Return images whose contrasts fall with their frequency, as in photos: uint8, shape (n, size, size, 3)."""
    random, images = np.random.default_rng(0), np.zeros((_IMAGES, size, size, 3))
    for cells in (2, 4, 8, 16, 32):
        grid = random.normal(size=(_IMAGES, cells, cells, 3))
        places = np.arange(size) * cells // size
        images += grid[:, places][:, :, places] / cells
    lowest, highest = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    return np.round(255 * (images - lowest) / (highest - lowest)).astype(np.uint8)
