"""Reading a PyTorch weights file without PyTorch, and without running what is in it.

A `.pth` file is a pickle, and a pickle is a program. `torch_pickle` carries out the few instructions that a file of
tensors needs, with six names; every other is refused. So a file can give wrong numbers but can never run code, and
what is read has at most twice the size of the file.

Source of the format: `torch.serialization` (the layout before version 1.6: four pickles, then the storages one by one,
each as a 64-bit count of elements and its raw little-endian bytes).
"""

import importlib.metadata
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from regraft.backbones.torch_pickle import Refused, Unpickler
from regraft.errors import InvalidWeights

if TYPE_CHECKING:
    import keras

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DAMAGE = (EOFError, LookupError, ValueError, TypeError)  # what wrong bytes lead to
_DTYPES = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.DoubleStorage": np.dtype("<f8"),
}
_MOST_AXES = 8
_BUDGET = 2  # bytes of tensors per byte of the file; without views that share a storage it is below 1


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
    except Refused as error:
        raise InvalidWeights(
            f"{path} holds {error}, not only tensors. Expected a state_dict saved by torch. Nothing of it was run; do "
            f"not load this file elsewhere, and get the weights from their publisher again."
        ) from None
    except OSError as error:
        raise InvalidWeights(f"{path} cannot be read ({error.strerror}). Expected a file saved by torch.") from None
    except _DAMAGE as error:
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


@dataclass(slots=True, eq=False)
class _Storage:
    dtype: np.dtype[Any]
    elements: int
    values: np.ndarray = field(init=False)


@dataclass(slots=True, eq=False)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.storage.dtype.itemsize

    def to_numpy(self) -> np.ndarray:
        if 0 in self.shape:
            return np.empty(self.shape, self.storage.dtype)
        itemsize = self.storage.dtype.itemsize
        strides = tuple(stride * itemsize for stride in self.strides)
        view = np.ndarray(self.shape, self.storage.dtype, self.storage.values, self.offset * itemsize, strides)
        return view.copy()


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, *_: Any) -> _Tensor:
    """A tensor that lies within its storage: NumPy must not read outside of it, nor make gigabytes of a few bytes."""
    if type(storage) is not _Storage or not _are_sizes((offset,)) or not _are_sizes(shape) or not _are_sizes(strides):
        raise ValueError("a tensor whose place is not given in whole numbers")
    if len(shape) != len(strides) or len(shape) > _MOST_AXES:
        raise ValueError("a tensor whose shape and strides do not suit each other")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 in shape:
        if math.prod(max(1, size) for size in shape) > storage.elements + 2**31:
            raise ValueError("an empty tensor with sides that no array has")
    elif last >= storage.elements:
        raise ValueError("a tensor reaches outside its storage")
    elif math.prod(shape) > storage.elements:  # strides of 0
        raise ValueError("a tensor is larger than its storage")
    return _Tensor(storage, offset, shape, strides)


def _are_sizes(values: Any) -> bool:
    """Whether these are whole numbers from 0 on, in a tuple; a bool is none, although Python takes it for one."""
    return type(values) is tuple and all(type(value) is int and value >= 0 for value in values)


def _ordered_dict() -> dict[str, Any]:
    return {}


class _Storages:
    """The storages that a file names, by key."""

    def __init__(self) -> None:
        self._by_key: dict[str, _Storage] = {}

    def find(self, pid: Any) -> _Storage:
        """Return the storage that a persistent id means: ("storage", its kind, key, device, elements, None)."""
        if type(pid) is not tuple or len(pid) != 6:
            raise ValueError("a storage in another form")
        _, dtype, key, _, elements, _ = pid
        if not any(dtype is known for known in _DTYPES.values()) or type(key) is not str or not _are_sizes((elements,)):
            raise ValueError("a storage of an unknown kind")
        storage = self._by_key.setdefault(key, _Storage(dtype, elements))
        if storage.dtype is not dtype or storage.elements != elements:
            raise ValueError("a storage with two sizes")
        return storage

    def read(self, file: BinaryIO, keys: Any) -> None:
        """Read the values of all of them, in the order of `keys`."""
        if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(self._by_key):
            raise ValueError("the list of storages does not name each that is used once")
        for key in keys:
            storage = self._by_key[key]
            if int.from_bytes(_exactly(file, 8), "little", signed=True) != storage.elements:
                raise ValueError("a storage has another size than its tensors say")
            storage.values = np.frombuffer(_exactly(file, storage.elements * storage.dtype.itemsize), storage.dtype)


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    start = file.read(4)
    file.seek(0)
    if start[:2] == b"PK":
        raise ValueError("the zip layout of torch 1.6 and later; save it with _use_new_zipfile_serialization=False")
    storages = _Storages()
    names = {**_DTYPES, "collections.OrderedDict": _ordered_dict, "torch._utils._rebuild_tensor_v2": _tensor}
    pickles = Unpickler(file, names, storages.find)
    if pickles.load() != _MAGIC or pickles.load() != _PROTOCOL:
        raise ValueError("wrong magic number")
    pickles.load()  # the writer's byte order and integer sizes; storages are little-endian in every known file
    tensors = pickles.load()
    if type(tensors) is not dict or not all(type(value) is _Tensor for value in tensors.values()):
        raise Refused("values of other types")
    if sum(tensor.nbytes for tensor in tensors.values()) > _BUDGET * os.fstat(file.fileno()).st_size:
        raise ValueError("its tensors are far larger than the file")
    storages.read(file, pickles.load())
    return {name: tensor.to_numpy() for name, tensor in tensors.items()}


def _exactly(file: BinaryIO, count: int) -> bytes:
    if count > os.fstat(file.fileno()).st_size:
        raise EOFError("a storage is larger than the whole file")
    contents = file.read(count)
    if len(contents) != count:
        raise EOFError(f"{count - len(contents)} bytes are missing")
    return contents
