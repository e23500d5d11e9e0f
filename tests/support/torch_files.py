"""Files of weights as torch.save wrote them before version 1.6, made without PyTorch."""

import pickle
import struct
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {"float32": "FloatStorage", "int64": "LongStorage", "float16": "HalfStorage", "float64": "DoubleStorage"}


class Storage:
    """What torch.save writes as a persistent id."""

    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key, self.values = key, values


class Tensor:
    """What torch.save writes as a call of torch._utils._rebuild_tensor_v2."""

    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


def tensor_of(values: np.ndarray, key: str = "0") -> tuple[Tensor, Storage]:
    """Return an array as a tensor with a storage of its own."""
    storage = Storage(key, values.ravel())
    strides = tuple(stride // values.itemsize for stride in np.asarray(values, order="C").strides)
    return Tensor(storage, 0, values.shape, strides), storage


def write(path: Path, state: object, storages: list[Storage], *, counts: dict[str, int] | None = None) -> Path:
    """Write a file; `counts` are wrong numbers of elements to claim by storage."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> Any:
            if not isinstance(obj, Storage):
                return None
            kind = getattr(sys.modules["torch"], STORAGES.get(obj.values.dtype.name, "ComplexFloatStorage"))
            return ("storage", kind, obj.key, "cpu", (counts or {}).get(obj.key, obj.values.size), None)

    with _torch_names(), path.open("wb") as file:
        for part in (MAGIC, PROTOCOL, {"little_endian": True}, state, [storage.key for storage in storages]):
            Pickler(file, protocol=2).dump(part)
        for storage in storages:
            file.write(struct.pack("<q", storage.values.size) + storage.values.tobytes())
    return path


@contextmanager
def _torch_names() -> Iterator[None]:
    """Just enough of a module named torch for pickle to write its names; the reader must do without it."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild(*_: object) -> None: ...

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    for name in [*STORAGES.values(), "ComplexFloatStorage"]:
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    modules = {"torch": torch, "torch._utils": utils}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def write_weights(path: Path, network: "keras.Model", *, seed: int = 0) -> Path:
    """Write made-up weights of a network under the names that its publisher's file has.

    Args:
        path: of the file.
        network: EfficientNet-Lite or the MobileNetV2 of PyTorch, as the catalogue builds them.
        seed: of the numbers.
    """
    random = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    names = _lite_names(network) if "lite" in network.name else _mobilenet_names(network)
    for layer, name in names:
        shapes = [tuple(variable.shape) for variable in layer.weights]
        if len(shapes) == 1:  # a kernel: (height, width, in, out), which PyTorch writes the other way round
            height, width, *channels = shapes[0]
            outputs, inputs = channels if "Depthwise" in type(layer).__name__ else reversed(channels)
            tensors[f"{name}.weight"] = random.normal(0, 0.1, (outputs, inputs, height, width)).astype(np.float32)
        else:
            for part, shape in zip(("weight", "bias", "running_mean", "running_var"), shapes, strict=True):
                tensors[f"{name}.{part}"] = random.uniform(0.5, 1.5, shape).astype(np.float32)
            tensors[f"{name}.num_batches_tracked"] = np.zeros((), np.int64)
    if "lite" in network.name:
        tensors |= {"_fc.weight": np.zeros((1000, 1280), np.float32), "_fc.bias": np.zeros(1000, np.float32)}
    pairs = {name: tensor_of(values, str(number)) for number, (name, values) in enumerate(tensors.items())}
    state = OrderedDict((name, tensor) for name, (tensor, _) in pairs.items())
    return write(path, state, [storage for _, storage in pairs.values()])


def _lite_names(network: "keras.Model") -> Iterator[tuple["keras.Layer", str]]:
    """Each block has its convolutions by name; its norms are numbered, and number 0 belongs to the expansion."""
    for layer in network.layers:
        block, _, rest = layer.name.partition("_")
        if not layer.weights:
            continue
        is_norm = rest.endswith("bn")
        if block == "stem":
            yield layer, "_bn0" if is_norm else "_conv_stem"
        elif block == "top":
            yield layer, "_bn1" if is_norm else "_conv_head"
        else:
            kind = rest.split("_")[0]
            norm = f"_bn{('expand', 'depthwise', 'project').index(kind)}"
            yield layer, f"_blocks.{block.removeprefix('block')}.{norm if is_norm else f'_{kind}_conv'}"


def _mobilenet_names(network: "keras.Model") -> Iterator[tuple["keras.Layer", str]]:
    """Convolutions, norms and ReLUs are counted from 0 in each block; stem, blocks and top are counted too."""
    blocks: list[str] = []
    position = 0
    for layer in network.layers:
        block = layer.name.partition("_")[0]
        if block not in ("stem", "top") and not block.startswith("block"):
            continue
        if block not in blocks:
            blocks.append(block)
            position = 0
        if layer.weights:
            inner = "" if block in ("stem", "top") else "conv."
            yield layer, f"features.{len(blocks) - 1}.{inner}{position}"
        position += type(layer).__name__ in ("Conv2D", "DepthwiseConv2D", "BatchNormalization", "ReLU")
