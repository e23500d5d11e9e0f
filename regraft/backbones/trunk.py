"""The frozen backbone as one ONNX graph: the graph that fills the store is the graph that ships.

The graph has two outputs, the activations at the cut and the pooled features, so one forward pass fills both parts of
the store; the exported model is composed of pieces of it. It is compared with Keras once, when it is converted, and
stored as `<backbone>-<key>.onnx` beside `<the same>.json`, which has its SHA-256, how closely it follows Keras, and a
seal of both. In the shared store `<backbone>-<key without libraries>.json` names the graph that a machine takes which
has no TensorFlow to convert one. ONNX Runtime runs it on the CPU; on a GPU TensorFlow runs the Keras model.
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx
import onnxruntime

from regraft.backbones.catalogue import Backbone
from regraft.core.config import Engine
from regraft.core.errors import ExportMismatch, RegraftError
from regraft.core.files import DAMAGE, fingerprint, write_bytes, writing
from regraft.core.processor import instruction_set
from regraft.core.provenance import provenance_of
from regraft.onnx_graphs.convert import canonical, convert_keras, with_uint8_input

if TYPE_CHECKING:
    import keras

ACTIVATIONS, FEATURES = "activations", "features"  # outputs of the frozen graph
_IMAGES = 8  # that a graph and its Keras model are compared on
# float32 through a hundred layers, summed in another order, differs by 1e-5 of the largest value; a wrong layer by 0.1.
_TOLERANCE = 1e-3
_GRAPH = re.compile(r"[\w.-]+-[0-9a-f]{16}\.onnx")


class Runner(Protocol):
    """Runs prepared images through the frozen backbone."""

    name: str  # engine, version and the CPU's instructions: other ones may give other values
    is_parallel: bool  # whether each decoding thread makes its own forward passes, or one thread makes all of them

    def run(self, images: np.ndarray, *, with_activations: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Return pooled features, and activations at the cut or None, float32."""
        ...


class OnnxRunner:
    """ONNX Runtime on the CPU, image by image.

    One image at a time on one thread is the fastest way on a CPU (272 images/s on two cores, 227 in batches of 32 that
    both share): activations stay in the cache, no thread waits for another, and no value depends on a batch.
    """

    is_parallel = True

    def __init__(self, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.name = f"onnxruntime {onnxruntime.__version__} (CPU, {instruction_set(integers=False)})"

    def run(self, images: np.ndarray, *, with_activations: bool) -> tuple[np.ndarray, np.ndarray | None]:
        wanted = [FEATURES, ACTIVATIONS] if with_activations else [FEATURES]
        rows = [self._session.run(wanted, {"prepared": image[None]}) for image in images]
        features, *activations = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        return features, activations[0] if activations else None


class TensorFlowRunner:
    """TensorFlow, on the GPU where it sees one, in batches."""

    is_parallel = False

    def __init__(self, backbone: Backbone) -> None:
        import keras
        import tensorflow as tf

        # TensorFlow would round factors to 10 bits on new GPUs; the shipped file computes in float32.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        model = backbone.build()
        both = keras.Model(model.input, [model.output, model.get_layer(backbone.cut).output])
        self._call = tf.function(lambda images: both(tf.cast(images, tf.float32), training=False))
        device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        self.name = f"tensorflow {tf.__version__} ({device})"

    def run(self, images: np.ndarray, *, with_activations: bool) -> tuple[np.ndarray, np.ndarray | None]:
        features, activations = self._call(images)
        return features.numpy(), activations.numpy() if with_activations else None


def choose_engine(wanted: Engine) -> Engine:
    """Return the engine that `auto` means here: TensorFlow if it sees a GPU, else ONNX Runtime."""
    if wanted != "auto":
        return wanted
    return "tensorflow" if _has_gpu() else "onnxruntime"


def _has_gpu() -> bool:
    # Importing TensorFlow takes seconds, so it is not asked on a machine without NVIDIA's driver.
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How closely a graph follows the Keras model that it was converted from."""

    images: int
    largest_difference: float  # of any value, as a share of the largest one of the same output


class SharedFiles(Protocol):
    """Small files by name, in a place that machines share: `regraft.store.remote.Remote`."""

    def read(self, name: str) -> bytes | None: ...
    def write(self, name: str, contents: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Trunk:
    """The frozen backbone, ready to run."""

    runner: Runner
    path: Path  # of the graph
    digest: str  # SHA-256 of the graph: weights, cut and normalisation are all in it
    image_size: int
    activation_shape: tuple[int, int, int]  # height, width, channels at the cut
    feature_dim: int
    agreement: Agreement | None  # with Keras, of the graph as it was converted

    @property
    def engine(self) -> str:
        """Name and version of the engine."""
        return self.runner.name

    def run(self, images: np.ndarray, *, with_activations: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Run prepared images through the frozen backbone.

        The backbone is in inference mode, so an image has the same values whatever else is in its batch: exactly on the
        CPU, up to the order of floating-point sums on a GPU. That makes them safe to cache.

        Args:
            images: uint8 RGB, shape (n, image_size, image_size, 3), values 0 to 255; the graph rescales them itself.
            with_activations: whether to return the activations at the cut too.

        Returns:
            Pooled features, float32, shape (n, feature_dim); and activations at the cut, float32, shape
            (n, *activation_shape), or None.
        """
        if images.dtype != np.uint8 or images.shape[1:] != (self.image_size, self.image_size, 3):
            raise ValueError(
                f"images must be uint8 of shape (n, {self.image_size}, {self.image_size}, 3). "
                f"Received: {images.dtype} of shape {images.shape}."
            )
        return self.runner.run(images, with_activations=with_activations)

    def read_graph(self) -> onnx.ModelProto:
        """Return the graph; RegraftError if it was removed or damaged since it was loaded."""
        contents = _read_file(self.path)
        if contents is None or hashlib.sha256(contents).hexdigest() != self.digest:
            raise RegraftError(
                f"{self.path} was removed or damaged while it was in use. Run the same command again: it is built anew."
            )
        return onnx.load_from_string(contents)


def load_trunk(backbone: Backbone, folder: Path, *, shared: SharedFiles | None = None) -> Trunk:
    """Return the frozen backbone; its graph is converted from Keras once and stored in `folder`.

    Args:
        backbone: from `choose_backbone`.
        folder: where graphs are stored between runs.
        shared: where machines share theirs: one that has no TensorFlow gets it from there.
    """
    engine = choose_engine(backbone.engine)
    name = f"{backbone.name}-{_graph_key(backbone)}.onnx"
    alias = f"{backbone.name}-{_graph_key(backbone, with_libraries=False)}.json"
    if shared and not _can_convert():
        name = _named_by(shared, alias) or name
    path = folder / name
    contents, agreement = _graph(path, backbone, shared, alias)
    outputs = onnx.load_from_string(contents).graph.output
    shapes = {output.name: [size.dim_value for size in output.type.tensor_type.shape.dim] for output in outputs}
    height, width, channels = shapes[ACTIVATIONS][1:]
    return Trunk(
        runner=TensorFlowRunner(backbone) if engine == "tensorflow" else OnnxRunner(contents),
        path=path,
        digest=hashlib.sha256(contents).hexdigest(),
        image_size=backbone.image_size,
        activation_shape=(height, width, channels),
        feature_dim=shapes[FEATURES][1],
        agreement=agreement,
    )


def _graph_key(backbone: Backbone, *, with_libraries: bool = True) -> str:
    """Return a digest of everything that decides the bytes of the graph, short enough for a file's name."""
    provenance = provenance_of(__name__)
    facts = {
        "name": backbone.name,
        "weights": backbone.weights_digest,
        "preprocessing": backbone.preprocessing,
        "image_size": backbone.image_size,
        "cut": backbone.wanted_cut,
        "provenance": provenance.digest if with_libraries else provenance.code,
    }
    return fingerprint(facts)[:16]


def _graph(path: Path, backbone: Backbone, shared: SharedFiles | None, alias: str) -> tuple[bytes, Agreement | None]:
    """Return a graph and its agreement from the folder, from the shared place, or converted now; store it in both."""
    seal = path.with_suffix(".json")
    found = _sound(_read_file(path), _read_file(seal))
    if found is None:
        found = _sound(_shared(shared, path.name), _shared(shared, seal.name))
        if found is None:
            graph, agreement = _build_graph(backbone)
            found = graph.SerializeToString(deterministic=True), agreement
        with writing(path.parent, len(found[0])):
            write_bytes(path, found[0])
            write_bytes(seal, _sealed(*found))  # last: without it a graph is none
    if shared is not None and _shared(shared, seal.name) != _sealed(*found):
        shared.write(f"graphs/{path.name}", found[0])
        shared.write(f"graphs/{seal.name}", _sealed(*found))
        if _can_convert():
            shared.write(f"graphs/{alias}", json.dumps({"graph": path.name}).encode())
    return found


def _named_by(shared: SharedFiles, alias: str) -> str | None:
    """Return the name of the graph that another machine converted, or None."""
    with suppress(*DAMAGE):
        name = json.loads(_shared(shared, alias) or b"")["graph"]
        return name if _GRAPH.fullmatch(name) else None
    return None


def _shared(shared: SharedFiles | None, name: str) -> bytes | None:
    return shared.read(f"graphs/{name}") if shared is not None else None


def _can_convert() -> bool:
    """Whether the libraries are installed that convert a graph from Keras."""
    return all(importlib.util.find_spec(name) for name in ("tensorflow", "keras", "tf2onnx"))


def _read_file(path: Path) -> bytes | None:
    with suppress(OSError):
        return path.read_bytes() if path.is_file() else None
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


def _build_graph(backbone: Backbone) -> tuple[onnx.ModelProto, Agreement]:
    if not _can_convert():
        raise RegraftError(
            f"the frozen graph of {backbone.name} is nowhere, and there is no TensorFlow here to convert it. Run "
            "`regraft retrain` once on a machine that has it, with the same machine.shared_store and the same code."
        )
    import keras

    model = backbone.build()
    both = keras.Model(model.input, [model.get_layer(backbone.cut).output, model.output])
    converted = convert_keras(both, input_name="prepared", output_names=[ACTIVATIONS, FEATURES])
    graph = canonical(with_uint8_input(converted))
    return graph, agreement_of(both, graph)


def agreement_of(model: "keras.Model", graph: onnx.ModelProto) -> Agreement:
    """Compare a graph with its Keras model on images that look like photos: many coarse and few fine contrasts.

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
