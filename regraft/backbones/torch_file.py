"""Reading a PyTorch weights file without PyTorch, and without running what is in it.

A `.pth` file is a pickle, and a pickle is a program. The reader below knows the four names that a file of tensors needs
and refuses every other, so a file can give wrong numbers but can never run code.

Source of the format: `torch.serialization` (the layout before version 1.6: four pickles, then the storages one by one,
each as a 64-bit count of elements and its raw little-endian bytes).
"""

import importlib.metadata
import math
import os
import pickle  # only through _TensorUnpickler, which refuses everything but tensors
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from regraft.errors import InvalidWeights

if TYPE_CHECKING:
    import keras

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DAMAGE = (EOFError, LookupError, ValueError, TypeError, AttributeError, OverflowError)  # what wrong bytes lead to
_STORAGES = {
    "FloatStorage": np.float32,
    "LongStorage": np.int64,
    "HalfStorage": np.float16,
    "DoubleStorage": np.float64,
}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Return every tensor of a `.pth` file by its name.

    Raises:
        InvalidWeights: no such file, truncated, another format, or it holds anything but tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except FileNotFoundError:
        raise InvalidWeights(f"{path} does not exist. Correct backbone.weights in params.yaml.") from None
    except _Refused as error:
        raise InvalidWeights(
            f"{path} holds {error}, not only tensors. Expected a state_dict saved by torch. Nothing of it was run; do "
            f"not load this file elsewhere, and get the weights from their publisher again."
        ) from None
    except (*_DAMAGE, pickle.UnpicklingError) as error:
        raise InvalidWeights(
            f"{path} is truncated or not a PyTorch weights file ({error or type(error).__name__}). "
            f"Get it from its publisher again."
        ) from None


def installed_file(package: str, suffix: str, install: str) -> Path:
    """Return the file with a suffix that a package installed.

    Args:
        package: its name in the registry.
        suffix: of the file, with the dot.
        install: the command that installs it, for the message.

    Raises:
        InvalidWeights: the package is not installed, or holds no such file.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise InvalidWeights(f"the weights are not installed. Run `{install}`.") from None
    for file in files:
        if file.suffix == suffix:
            return Path(str(file.locate()))
    raise InvalidWeights(f"the package {package} holds no {suffix} file. Install it again: `{install}`.")


def fill_layer(
    layer: "keras.Layer", tensors: dict[str, np.ndarray], conv: str, norm: str, *, path: Path, network: str
) -> None:
    """Put the tensors of a convolution without bias, or of its BatchNorm, into a Keras layer.

    Args:
        layer: Conv2D, DepthwiseConv2D or BatchNormalization, built.
        tensors: from `read_tensors`.
        conv: what the convolution is called in the file.
        norm: what the BatchNorm is called there.
        path: of the file, for messages.
        network: name of the network, for messages.

    Raises:
        InvalidWeights: a tensor is absent or has another shape.
    """
    kind = type(layer).__name__
    is_norm = kind == "BatchNormalization"
    parts = ("weight", "bias", "running_mean", "running_var")
    names = [f"{norm}.{part}" for part in parts] if is_norm else [f"{conv}.weight"]
    values = []
    for name, variable in zip(names, layer.weights, strict=True):
        if name not in tensors:
            raise InvalidWeights(f"{path} has no tensor {name}. Expected the weights of {network}.")
        value = tensors[name]
        if value.ndim == 4:  # from (out, in, height, width) to (height, width, in, out); depthwise the last two change
            value = value.transpose(2, 3, 0, 1) if kind == "DepthwiseConv2D" else value.transpose(2, 3, 1, 0)
        if value.shape != tuple(variable.shape):
            raise InvalidWeights(
                f"{path}: {name} has shape {value.shape}. Expected {tuple(variable.shape)}, as in {network}."
            )
        values.append(value)
    layer.set_weights(values)


class _Refused(Exception):
    """A name in the pickle that tensors do not need."""


@dataclass(slots=True)
class _Storage:
    dtype: type
    elements: int
    values: np.ndarray = field(init=False)


@dataclass(slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def to_numpy(self) -> np.ndarray:
        # Bounds first: a file must not make NumPy read outside the storage.
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape:
            return np.empty(self.shape, self.storage.dtype)
        if self.offset < 0 or min(self.strides, default=0) < 0 or last >= self.storage.elements:
            raise ValueError("a tensor reaches outside its storage")
        if math.prod(self.shape) > self.storage.elements:  # strides of 0 would make gigabytes of a few bytes
            raise ValueError("a tensor is larger than its storage")
        itemsize = self.storage.values.itemsize
        strides = tuple(stride * itemsize for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(self.storage.values[self.offset :], self.shape, strides)
        return view.copy()


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, storages: dict[str, _Storage]) -> None:
        super().__init__(file)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, shape, strides)
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise _Refused(f"'{module}.{name}'")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, elements, *_ = pid
        if dtype not in _STORAGES.values() or not isinstance(elements, int) or elements < 0:
            raise ValueError("a storage of an unknown kind")
        return self._storages.setdefault(key, _Storage(dtype, elements))


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    def load() -> Any:
        return _TensorUnpickler(file, storages).load()

    storages: dict[str, _Storage] = {}
    start = file.read(4)
    file.seek(0)
    if start[:2] == b"PK":
        raise ValueError("the zip layout of torch 1.6 and later; save it with _use_new_zipfile_serialization=False")
    if load() != _MAGIC or load() != _PROTOCOL:
        raise ValueError("wrong magic number")
    load()  # the writer's byte order and integer sizes; storages are little-endian in every known file
    tensors = load()
    if not isinstance(tensors, dict) or not all(isinstance(value, _Tensor) for value in tensors.values()):
        raise _Refused("values of other types")
    for key in load():
        storage = storages[key]
        (elements,) = np.frombuffer(_exactly(file, 8), "<i8")
        if elements != storage.elements:
            raise ValueError("a storage has another size than its tensors say")
        storage.values = np.frombuffer(
            _exactly(file, storage.elements * np.dtype(storage.dtype).itemsize), storage.dtype
        )
    return {name: tensor.to_numpy() for name, tensor in tensors.items()}


def _exactly(file: BinaryIO, count: int) -> bytes:
    if count > os.fstat(file.fileno()).st_size:
        raise EOFError("a storage is larger than the whole file")
    contents = file.read(count)
    if len(contents) != count:
        raise EOFError(f"{count - len(contents)} bytes are missing")
    return contents
