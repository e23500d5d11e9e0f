"""Frozen graphs: compared with Keras once, when they are converted, and stored beside a seal.

<backbone>-<what decides its bytes>.onnx    the graph
<the same>.json                             its SHA-256, how closely it follows Keras, and a seal of both
<backbone>-<the same without libraries>.json    in the shared place only: which graph a machine takes that has not
                                                the libraries to convert one, and so cannot know what decides its bytes
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx
import onnxruntime

from regraft.core.errors import ExportMismatch
from regraft.core.files import DAMAGE, fingerprint, write_bytes, writing

if TYPE_CHECKING:
    import keras

_IMAGES = 8
# float32 through a hundred layers, summed in another order, differs by 1e-5 of the largest value; a wrong layer by 0.1.
_TOLERANCE = 1e-3
_GRAPH = re.compile(r"[\w.-]+-[0-9a-f]{16}\.onnx")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How closely a graph follows the Keras model that it was converted from."""

    images: int
    largest_difference: float  # of any value, as a share of the largest one of the same output


Build = Callable[[], tuple[onnx.ModelProto, Agreement | None]]


class SharedFiles(Protocol):
    """Small files by name, in a place that machines share: `regraft.store.remote.Remote`."""

    def read(self, name: str) -> bytes | None: ...
    def write(self, name: str, contents: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class StoredGraphs:
    """The graphs in a folder, and in the shared place."""

    folder: Path
    shared: SharedFiles | None

    def get(self, name: str, build: Build, *, alias: str = "") -> tuple[bytes, Agreement | None]:
        """Return a graph and its agreement, and make sure that they are here; all that follows uses these bytes.

        Args:
            name: of the file.
            build: makes what is nowhere.
            alias: the name without ending under which a machine that cannot build it looks for it; "" for none.
        """
        path = self.folder / name
        text, contents = read_file(path.with_suffix(".json")), read_file(path)
        found = _sound(contents, text)
        if found is None and self.shared is not None:
            text, contents = self._shared(path.with_suffix(".json").name), self._shared(name)
            found = _sound(contents, text)
            if found:
                self._keep(path, *found)
        if found is None:
            graph, agreement = build()
            found = graph.SerializeToString(deterministic=True), agreement
            self._keep(path, *found)
        if self.shared is not None:
            self._share(path, *found, alias)
        return found

    def named_by(self, alias: str) -> str | None:
        """Return the name of the graph that another machine converted, or None."""
        contents = self._shared(f"{alias}.json")
        with suppress(*DAMAGE):
            name = json.loads(contents or b"")["graph"]
            return name if _GRAPH.fullmatch(name) else None
        return None

    def _keep(self, path: Path, contents: bytes, agreement: Agreement | None) -> None:
        with writing(path.parent, len(contents)):
            write_bytes(path, contents)
            write_bytes(path.with_suffix(".json"), _sealed(contents, agreement))  # last: without it a graph is none

    def _share(self, path: Path, contents: bytes, agreement: Agreement | None, alias: str) -> None:
        seal, sealed = path.with_suffix(".json").name, _sealed(contents, agreement)
        if self.shared is not None and self._shared(seal) != sealed:
            self.shared.write(f"graphs/{path.name}", contents)
            self.shared.write(f"graphs/{seal}", sealed)
            if alias and can_convert():
                self.shared.write(f"graphs/{alias}.json", json.dumps({"graph": path.name}).encode())

    def _shared(self, name: str) -> bytes | None:
        return self.shared.read(f"graphs/{name}") if self.shared is not None else None


def can_convert() -> bool:
    """Whether the libraries are installed that convert a graph from Keras."""
    return all(importlib.util.find_spec(name) for name in ("tensorflow", "keras", "tf2onnx"))


def read_file(path: Path) -> bytes | None:
    """Return a file's bytes, or None if there is no such file or one may not read it."""
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _sound(contents: bytes | None, text: bytes | None) -> tuple[bytes, Agreement | None] | None:
    """Return a graph and its agreement if they are those that were sealed."""
    if contents is not None and text is not None:
        with suppress(*DAMAGE):
            found = json.loads(text)["agreement"]
            agreement = found and Agreement(**found)
            if text == _sealed(contents, agreement):
                return contents, agreement
    return None


def _sealed(contents: bytes, agreement: Agreement | None) -> bytes:
    facts = {"sha256": hashlib.sha256(contents).hexdigest(), "agreement": agreement and asdict(agreement)}
    return json.dumps({**facts, "seal": fingerprint(facts)}).encode()


def agreement_of(model: "keras.Model", graph: onnx.ModelProto) -> Agreement:
    """Compare a graph with its Keras model on images that look like photos: many coarse and few fine contrasts.

    Args:
        model: prepared float32 RGB 0 to 255 in, a list of outputs.
        graph: the same, from uint8.

    Raises:
        ExportMismatch: they differ by more than rounding does.
    """
    images = _images(model.input_shape[1])
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ours: Sequence[np.ndarray] = session.run(None, {session.get_inputs()[0].name: images})  # pyright: ignore
    theirs = model.predict_on_batch(images.astype(np.float32))
    tiny = np.finfo(np.float32).tiny
    shares = [
        np.abs(our - their).max() / max(np.abs(their).max(), tiny) for our, their in zip(ours, theirs, strict=True)
    ]
    largest = float(np.max(shares))
    if not largest <= _TOLERANCE:  # NaN is no agreement
        raise ExportMismatch(
            f"the ONNX graph of the backbone and its Keras model differ by {largest:.2g} of the largest value, over "
            f"{_IMAGES} images; expected {_TOLERANCE:g} at most. This is a defect of the conversion: choose another "
            f"backbone, and please report it with the versions in requirements.lock."
        )
    return Agreement(_IMAGES, float(f"{largest:.1e}"))


def _images(size: int) -> np.ndarray:
    """Return images whose contrasts fall with their frequency, as in photos: uint8, shape (n, size, size, 3)."""
    random, images = np.random.default_rng(0), np.zeros((_IMAGES, size, size, 3))
    for cells in (2, 4, 8, 16, 32):
        grid = random.normal(size=(_IMAGES, cells, cells, 3))
        places = np.arange(size) * cells // size
        images += grid[:, places][:, :, places] / cells
    lowest, highest = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    return np.round(255 * (images - lowest) / (highest - lowest)).astype(np.uint8)
