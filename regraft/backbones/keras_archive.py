"""What a foreign .keras file may hold, checked before Keras reads any of it.

A .keras file is a zip archive: config.json names the classes that Keras makes objects of, model.weights.h5 holds
numbers. Of the config only layers of image networks are let through, of the archive only what Keras itself writes. The
numbers are read once by a process of their own (`regraft.backbones.keras_weights`), since HDF5 is C code.
"""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regraft.errors import InvalidWeights

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
_LONGEST_CONFIG = 20_000_000  # bytes; the largest of keras.applications has 2 million
_DEEPEST = 100  # brackets; a model in a model adds six
_MOST_SECONDS = 600  # to read the weights once
_LAYER_NAMES = """
Activation ActivityRegularization AdaptiveAveragePooling2D AdaptiveMaxPooling2D Add AlphaDropout Attention
Average AveragePooling2D BatchNormalization CenterCrop Concatenate Conv1D Conv2D Conv2DTranspose Cropping2D Dense
DepthwiseConv2D Dot Dropout ELU EinsumDense Flatten GaussianDropout GaussianNoise GlobalAveragePooling1D
GlobalAveragePooling2D GlobalMaxPooling1D GlobalMaxPooling2D GroupNormalization GroupQueryAttention Identity
InputLayer LayerNormalization LeakyReLU MaxPooling2D Maximum Minimum MultiHeadAttention Multiply Normalization
PReLU Permute RMSNormalization RandomBrightness RandomContrast RandomCrop RandomFlip RandomRotation
RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv2D Softmax
SpatialDropout2D Subtract UnitNormalization UpSampling2D ZeroPadding2D
"""
_MODELS = frozenset({"Functional", "Sequential"})
_WORDS = re.compile(r"[A-Z][A-Za-z0-9]*")  # a class, as Keras names them; functions start with a small letter
# By module, the classes that a file may name.
_CLASSES: dict[str, frozenset[str] | re.Pattern[str]] = {
    "keras": _MODELS | {"DTypePolicy"},
    "keras.models": _MODELS,
    "keras.src.models.functional": _MODELS,
    "keras.src.models.sequential": _MODELS,
    "keras.layers": frozenset(_LAYER_NAMES.split()),
    "keras.src.applications.convnext": frozenset({"LayerScale"}),
    "keras.dtype_policies": frozenset({"DTypePolicy"}),
    "keras.initializers": _WORDS,
    "keras.regularizers": _WORDS,
    "keras.constraints": _WORDS,
    "keras.src.ops.numpy": _WORDS,
    "keras.src.ops.nn": _WORDS,
    "keras.src.ops.math": _WORDS,
}
_DATA = {"__keras_tensor__", "__ellipsis__", "__slice__"}  # that Keras writes in place of an object
_ARRAYS = {"__tensor__", "__numpy__"}
_DTYPES = {"float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"}


@contextmanager
def checked_copy(path: Path) -> Iterator[tuple[Path, int]]:
    """Yield a copy of a .keras file that holds what was checked and nothing else, and the bytes of its numbers.

    How the model was compiled is left out.

    Raises:
        InvalidWeights: the file is no archive as Keras writes it, or names what no image network needs.
    """
    with tempfile.TemporaryDirectory() as folder:
        weights, copy = Path(folder, WEIGHTS), Path(folder, "model.keras")
        try:
            with zipfile.ZipFile(path) as archive:
                members = _members(archive)
                config = _checked_config(archive.read(members[CONFIG]))
                with archive.open(members[WEIGHTS]) as source, weights.open("wb") as target:
                    while part := source.read(2**20):  # to the end, where the checksum is compared
                        target.write(part)
            size = size_of_numbers(weights)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, KeyError) as error:
            raise refusal(path, error) from None
        with zipfile.ZipFile(copy, "w") as archive:
            archive.writestr(METADATA, "{}")
            archive.writestr(CONFIG, json.dumps(config))
            archive.write(weights, WEIGHTS)
        weights.unlink()
        yield copy, size


def refusal(path: Path, reason: object) -> InvalidWeights:
    """Return the error for a file that cannot be loaded."""
    words = " ".join(str(reason).split())[:300]
    return InvalidWeights(
        f"backbone.name: {path} cannot be loaded ({words}). Expected a file saved by Keras 3 as .keras, with layers of "
        f"image networks alone, without Lambda layers and classes of its own: a model file must not bring code."
    )


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = {info.filename: info for info in archive.infolist()}
    if set(members) != {CONFIG, WEIGHTS, METADATA} or len(archive.infolist()) != 3:
        names = ", ".join(list(members)[:5])
        raise ValueError(f"an archive of {CONFIG}, {WEIGHTS} and {METADATA} is expected, and found is: {names}")
    # Keras does not compress. So no member can be larger than the file.
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise ValueError("its members are compressed, and Keras compresses none")
    if members[CONFIG].file_size > _LONGEST_CONFIG:
        raise ValueError(f"{CONFIG} is longer than {_LONGEST_CONFIG:,} bytes")
    return members


def _checked_config(text: bytes) -> dict[str, Any]:
    """The config without what says how models were compiled, if it names nothing but what is let through."""
    depth = deepest = 0
    # Texts are skipped; they may hold brackets. A quote without an end is for the parser to refuse.
    for token in re.finditer(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', text, re.S):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        raise ValueError(f"{CONFIG} is nested {deepest} deep")
    config = json.loads(text)
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} is no object")
    pending: list[Any] = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            value.pop("compile_config", None)
            if "class_name" in value:
                _check_class(value)
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return config


def _check_class(entry: dict[str, Any]) -> None:
    """Raise ValueError unless an entry is one of the classes that are let through."""
    name, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
    inner = entry.get("config")
    if not isinstance(name, str):
        raise ValueError("a class without a name")
    if name in _DATA:
        return
    if name in _ARRAYS:
        if not isinstance(inner, dict) or inner.get("dtype") not in list(_DTYPES):
            raise ValueError(f"{name} of another kind than numbers")
        return
    if name == "function":
        if module == "builtins" and isinstance(inner, str) and inner in _activations():
            return
        raise ValueError(f"the function {str(inner)[:80]!r} of {str(module)[:80]}")
    known = _CLASSES.get(module, frozenset()) if isinstance(module, str) else frozenset()
    is_known = name in known if isinstance(known, frozenset) else known.fullmatch(name)
    if not is_known or registered not in (None, name):
        raise ValueError(f"the class {str(registered or name)[:80]} of {str(module)[:80]}")
    if inner is not None and not isinstance(inner, dict):
        raise ValueError(f"the settings of a {name} are no object")


def _activations() -> set[str]:
    import keras

    return {name for name in dir(keras.activations) if name[0].islower() and name not in ("get", "serialize")}


def size_of_numbers(weights: Path) -> int:
    """Let another process read all numbers of an HDF5 file, and return their bytes.

    Raises:
        ValueError: it holds something else, points to other files, or cannot be read.
    """
    command = [sys.executable, "-m", "regraft.backbones.keras_weights", str(weights)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"reading {weights.name} takes longer than {_MOST_SECONDS} seconds") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        raise ValueError(f"reading {weights.name} ended a process with status {done.returncode}. {last[0]}") from None
    if answer["problem"]:
        raise ValueError(answer["problem"])
    return answer["bytes"]
