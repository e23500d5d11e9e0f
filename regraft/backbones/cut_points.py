"""The preprocessing in front of a network, and the layers after which it can be cut in two.

Weights only work with the preprocessing that they were trained with, and another one costs accuracy in silence. As a
layer it is saved, converted and shipped with the network: the input is RGB from 0 to 255.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.core.errors import InvalidParams

if TYPE_CHECKING:
    import keras

PREPROCESSING = "preprocessing"  # name of the layer
MODES = {
    "none": "RGB 0 to 255 as they are",
    "tf": "x / 127.5 - 1",
    "torch": "(x / 255 - mean) / standard deviation of ImageNet",
    "caffe": "blue, green, red, less the mean of ImageNet",
    "lite": "(x - 127) / 128",
}
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # of red, green, blue, 0 to 1
_CAFFE_MEAN = np.array([103.939, 116.779, 123.68], np.float32)  # of blue, green, red, 0 to 255
# The part of the work above the cut that fine-tuning repeats in every epoch. With less, too little of the network is
# adapted; with more, too little is saved (docs/log.md). The cut of EfficientNet-Lite0 has 0.63.
_LEAST, _MOST = 0.6, 0.7
_BYTES = 2  # of an activation in the store: float16


def preprocessed_input(image_size: int, mode: str) -> tuple["keras.KerasTensor", "keras.KerasTensor"]:
    """Return the input of a network and the input of its first layer.

    Returns:
        `image`: float32, shape (n, image_size, image_size, 3), RGB 0 to 255; and the same after preprocessing.

    Source: tf, torch and caffe are the modes of `keras.applications.imagenet_utils.preprocess_input`.
    """
    import keras

    image = keras.Input((image_size, image_size, 3), name="image")
    return image, image if mode == "none" else _layer(mode)(image)


def _layer(mode: str) -> "keras.Layer":
    from keras.layers import Conv2D, Rescaling

    if mode == "tf":
        return Rescaling(1 / 127.5, offset=-1, name=PREPROCESSING)
    if mode == "lite":
        return Rescaling(1 / 128, offset=-127 / 128, name=PREPROCESSING)
    if mode == "torch":
        return Rescaling((1 / (255 * _DEVIATION)).tolist(), offset=(-_MEAN / _DEVIATION).tolist(), name=PREPROCESSING)
    # A convolution by one pixel swaps the colours exactly: sums of one value and two zeros.
    swap = Conv2D(3, 1, trainable=False, name=PREPROCESSING)
    swap.build((None, None, None, 3))
    swap.set_weights([np.eye(3, dtype=np.float32)[::-1].reshape(1, 1, 3, 3), -_CAFFE_MEAN])
    return swap


@dataclass(frozen=True, slots=True)
class CutPoint:
    """A layer whose output is all that the rest of the network needs."""

    name: str
    activation_bytes: int  # of one image in the store
    share_above: float  # of the network's multiply-adds that come after it


def cut_points(model: "keras.Model") -> list[CutPoint]:
    """Return the layers with feature maps through whose single output every path from input to output goes, in order.

    Walk the layers in the order in which they are computed and keep the set of outputs that a later layer still needs.
    Where that set holds just the newest output, everything after depends on it alone, and the network can be cut there.
    """
    import keras

    order = _order(model)
    last_use: dict[int, int] = {}
    for position, node in enumerate(order):
        for tensor in node.input_tensors:
            last_use[id(tensor)] = position
    needed: set[int] = set()
    total, done = sum(map(_multiply_adds_of, order)), 0
    points = []
    for position, node in enumerate(order):
        done += _multiply_adds_of(node)
        needed = {tensor for tensor in needed if last_use[tensor] > position}
        needed |= {id(tensor) for tensor in node.outputs if last_use.get(id(tensor), -1) > position}
        if len(node.outputs) == 1 and needed == {id(node.outputs[0])} and not node.is_input:
            shape = node.outputs[0].shape
            if len(shape) == 4 and isinstance(node.operation, keras.Layer):  # of a model only layers can be asked for
                points.append(CutPoint(node.operation.name, _BYTES * math.prod(shape[1:]), 1 - done / max(total, 1)))
    return points


def multiply_adds(model: "keras.Model") -> int:
    """Return the multiplications, each with an addition, that one image takes: those of kernels alone."""
    return sum(map(_multiply_adds_of, _order(model)))


def best_cut(model: "keras.Model") -> str:
    """Return the cut point for fine-tuning where none was chosen by hand.

    Of those with 60 to 70 % of the multiply-adds above them it is the one with the smallest activation; of equals, the
    last. Without any it is the one whose share is nearest to 65 %.

    Raises:
        InvalidParams: the network cannot be cut anywhere.
    """
    points = cut_points(model)
    if not points:
        raise InvalidParams(f"backbone.name: {model.name} cannot be cut after any layer. Choose another backbone.")
    middle = (_LEAST + _MOST) / 2
    inside = [point for point in points if _LEAST <= point.share_above <= _MOST]
    if inside:
        return min(reversed(inside), key=lambda point: point.activation_bytes).name
    return min(reversed(points), key=lambda point: abs(point.share_above - middle)).name


def checked_cut(model: "keras.Model", cut: str) -> str:
    """Return `cut`, or raise InvalidParams with the possible ones if the network cannot be cut there."""
    points = [point.name for point in cut_points(model)]
    if cut not in points:
        raise InvalidParams(
            f"backbone.cut: {model.name} cannot be cut after '{cut}'. Expected auto, or one of: {', '.join(points)}."
        )
    return cut


def check_top(model: "keras.Model", cut: str) -> None:
    """Raise InvalidParams if there is nothing to train between the cut and the features of a backbone with its head."""
    import keras

    features = model.get_layer("features").output
    if not keras.Model(model.get_layer(cut).output, features).weights:
        # Without the head, which is above every cut.
        backbone = keras.Model(model.input, features)
        points = ", ".join(point.name for point in cut_points(backbone) if point.share_above > 0)
        raise InvalidParams(
            f"fine_tune.mode: {model.name} has no layer to train after the cut '{cut}'. Set fine_tune.mode to off and "
            f"train a head alone, or backbone.cut to one of: {points}."
        )


def _order(model: "keras.Model") -> list[Any]:
    """Every use of a layer, in the order in which they are computed."""
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]


def _multiply_adds_of(node: Any) -> int:
    """Every number of a kernel is used once per position of the output."""
    kernels = [variable for variable in getattr(node.operation, "weights", []) if len(variable.shape) > 1]
    positions = math.prod(node.outputs[0].shape[1:-1]) if kernels else 0
    return sum(math.prod(kernel.shape) for kernel in kernels) * positions
