"""The frozen backbone as one ONNX graph: what fills the store is what ships.

The graph `backbone.onnx` has two outputs, the activations at the cut and the pooled features, so one forward pass fills
both parts of the store. The exported model is composed of pieces of this very graph.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from regraft.backbones.catalogue import Backbone
from regraft.backbones.graph_files import Agreement, SharedFiles, StoredGraphs, agreement_of, can_convert, read_file
from regraft.backbones.runners import ACTIVATIONS, FEATURES, Runner, choose_engine, start_runner
from regraft.core.errors import RegraftError
from regraft.core.files import fingerprint
from regraft.core.provenance import provenance_of
from regraft.onnx_graphs.convert import canonical, convert_keras, with_uint8_input


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
