"""The file to ship: one ONNX graph from raw uint8 pixels to probabilities, compared on real photos.

It is composed, not converted anew: preprocessing + the frozen graph that filled the store + the trained part. So the
head was trained on exactly what the file computes. Only where all layers were trained nothing of that graph is left.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from regraft import __version__
from regraft.backbones.catalogue import Backbone
from regraft.backbones.trunk import Trunk
from regraft.errors import ExportMismatch
from regraft.export.trained_part import PREPARED, Expected, TrainedPart
from regraft.export.two_parts import BORDER, facts_of
from regraft.onnx_graphs.convert import canonical, chained, part_of, renamed, with_uint8_input
from regraft.photos.dataset import Dataset
from regraft.photos.preparation import Preparation
from regraft.serving.promise import Promise
from regraft.training.network_file import Trained

_BATCH = 32  # photos of the other side at a time
_FROZEN_PART = {True: "int8 weights and activations", False: "float32"}


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely the ONNX file follows what was trained, over some photos."""

    images: int
    largest_difference: float  # of any probability
    mean_difference: float  # of all probabilities
    same_top1: float  # share of photos with the same most probable class


def build_classifier(
    part: TrainedPart, backbone: Backbone, trunk: Trunk, preparation: Preparation, class_names: list[str]
) -> onnx.ModelProto:
    """Return the graph to ship.

    Input `image`: uint8 RGB, shape (batch, height, width, 3), upright, any size. Output `probabilities`: float32, shape
    (batch, num_classes).

    Args:
        part: what was trained, from `part_to_ship`; what lies before it is taken from the frozen graph.
        backbone: the frozen network it started from.
        trunk: its graph.
        preparation: the preprocessing to build in.
        class_names: in the order of the outputs.
    """
    parts = [preparation.build_graph()]
    if part.source == PREPARED:
        parts.append(with_uint8_input(part.graph))
    else:
        parts += [part_of(trunk.read_graph(), [part.source]), part.graph]
    whole = chained(parts)
    outer = {whole.graph.input[0].name: "image", whole.graph.output[0].name: "probabilities"}
    whole = renamed(whole, outer)
    onnx.helper.set_model_props(whole, _metadata(backbone, trunk, preparation, class_names, part.trained))
    whole = canonical(whole)
    if part.trained == "head":  # its nodes come last
        facts = {**facts_of(whole), BORDER: whole.graph.node[-len(part.graph.graph.node)].input[0]}
        onnx.helper.set_model_props(whole, dict(sorted(facts.items())))
    onnx.checker.check_model(whole, full_check=True)
    return whole


def _metadata(
    backbone: Backbone, trunk: Trunk, preparation: Preparation, class_names: list[str], trained: Trained
) -> dict[str, str]:
    """What the file says of itself."""
    return {
        "regraft_version": __version__,
        "class_names": json.dumps(class_names, ensure_ascii=False),
        "input": "image: uint8 RGB, (batch, height, width, 3), any size, upright (apply the EXIF orientation first)",
        "output": "probabilities: float32, (batch, classes), in the order of class_names",
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
        "frozen_part": _FROZEN_PART[trunk.is_quantised] if trained != "all" else "none",
        "fine_tuned_from": {"head": "nothing: frozen backbone", "top": backbone.cut, "all": "the input"}[trained],
    }


def refuse_difference(parity: Parity, path: Path, *, tolerance: float) -> None:
    """Refuse to ship a graph that computes something else than what was trained.

    Args:
        parity: from `compare`.
        path: of the file that the graph was to replace.
        tolerance: the largest difference of any probability that is allowed.

    Raises:
        ExportMismatch: they differ by more.
    """
    if not parity.largest_difference <= tolerance:  # NaN is no agreement
        raise ExportMismatch(
            f"the ONNX graph and the trained network differ by {parity.largest_difference:.2g} in a probability, over "
            f"{parity.images} photos (export_onnx.tolerance: {tolerance:g}). {path} is left as it was. This is a "
            f"defect of the conversion: please report it with the versions in requirements.lock."
        )


def compare(onnx_side: np.ndarray, expected: Expected, dataset: Dataset) -> Parity:
    """Compare what the ONNX file said of raw photos with what it has to say of them.

    Args:
        onnx_side: probabilities of the photos, from `probabilities_of`, shape (n, num_classes).
        expected: of the `TrainedPart`.
        dataset: the n photos.
    """
    photos, batches = dataset.photos(), []
    for start in range(0, len(photos), _BATCH):
        batches.append(expected(map(dataset.read_photo, photos[start : start + _BATCH])))
    other_side = np.concatenate(batches)
    difference = np.abs(onnx_side - other_side)
    same = onnx_side.argmax(axis=1) == other_side.argmax(axis=1)
    return Parity(len(dataset), float(difference.max()), float(difference.mean()), float(same.mean()))


def write_graph(path: Path, graph: onnx.ModelProto, promise: Promise | None) -> None:
    """Write a graph to ship, in the same bytes for the same graph; the file says of itself when it is to abstain."""
    if promise:
        facts = {**facts_of(graph), **promise.as_metadata()}
        graph, source = onnx.ModelProto(), graph
        graph.CopyFrom(source)
        onnx.helper.set_model_props(graph, dict(sorted(facts.items())))
    path.write_bytes(graph.SerializeToString(deterministic=True))
