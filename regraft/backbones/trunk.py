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
from collections.abc import Callable, Sequence
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
    """Return what `auto` means here: TensorFlow if it sees a GPU, else ONNX Runtime."""
    if wanted != "auto":
        return wanted
    return "tensorflow" if _has_gpu() else "onnxruntime"


def _has_gpu() -> bool:
    # Importing TensorFlow takes seconds, so a machine without NVIDIA's driver is not asked.
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def start_runner(engine: Engine, backbone: Backbone, graph: bytes) -> Runner:
    """Return the runner of an engine that `choose_engine` chose; `graph` is a serialised ONNX model."""
    return TensorFlowRunner(backbone) if engine == "tensorflow" else OnnxRunner(graph)


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


@dataclass(frozen=True, slots=True)
class Trunk:
    """The frozen backbone, ready to run."""

    runner: Runner
    path: Path  # of backbone.onnx
    digest: str  # SHA-256 of backbone.onnx: weights, cut and normalisation are all in it
    image_size: int
    activation_shape: tuple[int, int, int]  # height, width, channels at the cut
    feature_dim: int
    agreement: Agreement | None  # with Keras, of the graph as it was converted; None where it is of no conversion

    @property
    def engine(self) -> str:
        """Name and version of what computes."""
        return self.runner.name

    def run(self, images: np.ndarray, *, with_activations: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Run prepared images through the frozen backbone.

        The backbone is in inference mode, so an image has the same values whatever else is in its batch: exactly on the
        CPU, up to the order of floating-point sums on a GPU. That is what makes them safe to keep.

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
        contents = read_file(self.path)
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
    graphs = StoredGraphs(folder, shared)
    name = f"{backbone.name}-{_graph_key(backbone)}.onnx"
    alias = f"{backbone.name}-{_graph_key(backbone, with_libraries=False)}"
    if not can_convert():
        name = graphs.named_by(alias) or name
    path = folder / name
    contents, agreement = graphs.get(name, lambda: _build_graph(backbone), alias=alias)
    outputs = onnx.load_from_string(contents).graph.output
    shapes = {output.name: [size.dim_value for size in output.type.tensor_type.shape.dim] for output in outputs}
    height, width, channels = shapes[ACTIVATIONS][1:]
    return Trunk(
        runner=start_runner(engine, backbone, contents),
        path=path,
        digest=hashlib.sha256(contents).hexdigest(),
        image_size=backbone.image_size,
        activation_shape=(height, width, channels),
        feature_dim=shapes[FEATURES][1],
        agreement=agreement,
    )


def _graph_key(backbone: Backbone, *, with_libraries: bool = True) -> str:
    """What decides the bytes of the graph, short enough for a file's name."""
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


def _build_graph(backbone: Backbone) -> tuple[onnx.ModelProto, Agreement]:
    if not can_convert():
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
