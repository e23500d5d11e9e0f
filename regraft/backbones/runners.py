"""What computes the frozen backbone: ONNX Runtime on the CPU, TensorFlow on a GPU."""

from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime

from regraft.backbones.catalogue import Backbone
from regraft.core.config import Engine
from regraft.core.processor import instruction_set

ACTIVATIONS, FEATURES = "activations", "features"  # outputs of the frozen graph


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
