"""The file to ship: one ONNX graph from raw uint8 pixels to probabilities, features and novelty.

It is composed, not converted anew: preprocessing + the frozen graph that filled the store + the trained part + the
head. So the head was trained on exactly what the file computes. Only where all layers were trained nothing of that
graph is left.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, compose, helper

from regraft import __version__
from regraft.backbones.catalogue import Backbone
from regraft.backbones.trunk import Trunk
from regraft.export.onnx_head import head_graph
from regraft.export.trained_part import PREPARED, TrainedPart
from regraft.export.two_parts import BORDER, FEATURES, as_bytes, facts_of, in_two_parts, with_facts
from regraft.onnx_graphs.convert import canonical, chained, part_of, renamed, with_uint8_input
from regraft.photos.preparation import OPSET, Preparation
from regraft.training.network_file import Head, Trained

# The lowest that goes with opset 18 (ONNX 1.13): ONNX Runtime from 1.14 on, of January 2023, reads the file, and so do
# onnxruntime-web, Triton and OpenVINO of that time. Graphs that never leave the store have a newer one.
IR_VERSION = 8
_OUTPUTS = {
    "probabilities": "float32, (batch, classes), in the order of class_names",
    "features": "float32, (batch, feature_dim), pooled: what the head takes; for search and drift",
    "novelty": "float32, (batch,), 1 - cosine to the nearest class prototype: 0 alike, 1 unrelated",
}


def build_classifier(
    part: TrainedPart, backbone: Backbone, trunk: Trunk, preparation: Preparation, class_names: list[str]
) -> onnx.ModelProto:
    """Return the graph to ship, with the head as it was trained and without the output `novelty`: see `with_head`.

    Input `image`: uint8 RGB, shape (batch, height, width, 3), upright, any size. Outputs `probabilities`: float32,
    shape (batch, num_classes), and `features`: float32, shape (batch, feature_dim).

    Args:
        part: what was trained, from `part_to_ship`; what lies before it is taken from the frozen graph.
        backbone: the frozen network it started from.
        trunk: its graph.
        preparation: the preprocessing to build in.
        class_names: in the order of the outputs.
    """
    parts = [preparation.build_graph()]
    if part.source == PREPARED:
        assert part.graph  # it has all layers
        parts.append(with_uint8_input(part.graph))
    else:
        parts += [part_of(trunk.read_graph(), [part.source]), *([part.graph] if part.graph else [])]
    body = chained(parts)
    body = renamed(body, {body.graph.input[0].name: "image", body.graph.output[0].name: FEATURES})
    facts = _metadata(backbone, preparation, class_names, part.trained)
    return with_facts(_joined(body, head_graph(part.head)), facts)


def with_head(graph: onnx.ModelProto, head: Head, prototypes: np.ndarray) -> onnx.ModelProto:
    """Return a graph from `build_classifier` with this head, and with the output `novelty`: float32, shape (batch,).

    Args:
        graph: its first part stays as it is, to the byte, and so does what it says of itself.
        head: of the same classes.
        prototypes: from `class_prototypes`.
    """
    body = onnx.load_from_string(in_two_parts(graph).body)
    return with_facts(_joined(body, head_graph(head, prototypes)), facts_of(graph))


def write_graph(path: Path, graph: onnx.ModelProto, facts: Mapping[str, str | None] | None = None) -> None:
    """Write a graph to ship, in the same bytes for the same graph; the file says these facts of itself as well."""
    path.write_bytes(as_bytes(with_facts(graph, facts or {})))


def _joined(body: onnx.ModelProto, head: onnx.ModelProto) -> onnx.ModelProto:
    """Return both as one canonical graph, in which the features between them are an output too."""
    body, head = compose.add_prefix(body, "body/"), compose.add_prefix(head, "head/")
    body.ir_version = head.ir_version = IR_VERSION
    outer, inner = body.graph.output[0].name, head.graph.input[0].name
    whole = compose.merge_models(body, head, io_map=[(outer, inner)])
    probabilities, *others = list(whole.graph.output)
    feature_dim = head.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    features = helper.make_tensor_value_info(outer, TensorProto.FLOAT, ["batch", feature_dim])
    del whole.graph.output[:]
    whole.graph.output.extend([probabilities, features, *others])
    del whole.opset_import[:]
    whole.opset_import.append(helper.make_opsetid("", OPSET))
    ends = [*whole.graph.input, *whole.graph.output]
    whole = canonical(renamed(whole, {value.name: value.name.partition("/")[2] for value in ends}))
    whole.ir_version = IR_VERSION
    onnx.checker.check_model(whole, full_check=True)
    return whole


def _metadata(backbone: Backbone, preparation: Preparation, class_names: list[str], trained: Trained) -> dict[str, str]:
    """What the file says of itself, whatever its head."""
    facts = {
        "regraft_version": __version__,
        "class_names": json.dumps(class_names, ensure_ascii=False),
        "input": "image: uint8 RGB, (batch, height, width, 3), any size, upright (apply the EXIF orientation first)",
        "outputs": json.dumps(_OUTPUTS),
        "preprocessing": json.dumps(
            {
                "inside_the_graph": True,
                "crop": "centre square",
                "crop_fraction": preparation.crop_fraction,
                "resize": "bilinear, antialiased",
                "image_size": preparation.image_size,
            }
        ),
        "backbone": backbone.name,
        "backbone_preprocessing": backbone.preprocessing,
        "backbone_weights_sha256": backbone.weights_digest,
        "backbone_weights_licence": backbone.recipe.weights_licence if backbone.weights else "none",
        "frozen_part": "float32" if trained != "all" else "none",
        "fine_tuned_from": {"head": "nothing: frozen backbone", "top": backbone.cut, "all": "the input"}[trained],
    }
    return facts | ({BORDER: FEATURES} if trained == "head" else {})
