"""The file to ship: one ONNX graph from raw uint8 pixels to probabilities, proven on real photos.

It is composed, not converted anew: preprocessing + the frozen graph that filled the store + the converted rest. So the
head was trained on exactly what the file computes. Only where all layers were trained nothing of that graph is left.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx

from regraft import __version__
from regraft.backbones.catalogue import Backbone
from regraft.backbones.runners import ACTIVATIONS, FEATURES
from regraft.backbones.trunk import Trunk
from regraft.errors import ExportMismatch
from regraft.export.promise import Promise
from regraft.onnx_graphs.convert import canonical, chained, convert_keras, part_of, renamed, with_uint8_input
from regraft.photos.dataset import Dataset
from regraft.photos.preparation import Preparation

if TYPE_CHECKING:
    import keras


Trained = Literal["head", "top", "all"]  # the head alone, what lies above the cut, or the whole network
Expected = Callable[[Iterable[np.ndarray]], np.ndarray]  # raw photos, uint8 RGB of any size, to probabilities
_KERAS_BATCH = 32
_FROZEN_PART = {True: "int8 weights and activations", False: "float32"}


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely the ONNX file follows the Keras model, over some photos."""

    images: int
    largest_difference: float  # of any probability
    mean_difference: float  # of all probabilities
    same_top1: float  # share of photos with the same most probable class


def build_classifier(
    model: "keras.Model",
    backbone: Backbone,
    trunk: Trunk,
    preparation: Preparation,
    class_names: list[str],
    *,
    trained: Trained,
) -> onnx.ModelProto:
    """Return the graph to ship.

    Input `image`: uint8 RGB, shape (batch, height, width, 3), upright, any size. Output `probabilities`: float32, shape
    (batch, num_classes).

    Args:
        model: the whole Keras network, from `layers.join`.
        backbone: the frozen network it started from.
        trunk: its graph.
        preparation: the preprocessing to build in.
        class_names: in the order of the outputs.
        trained: what differs from the backbone as it was. That is converted; what lies before it is taken from the
            frozen graph.
    """
    if trained == "all":
        converted = convert_keras(model, input_name="prepared", output_names=["probabilities"])
        parts = [with_uint8_input(converted)]
    else:
        rest, source = _rest(model, backbone, trained)
        frozen = part_of(trunk.read_graph(), [source])
        parts = [frozen, convert_keras(rest, input_name=source, output_names=["probabilities"])]
    whole = chained([preparation.build_graph(), *parts])
    outer = {whole.graph.input[0].name: "image", whole.graph.output[0].name: "probabilities"}
    whole = renamed(whole, outer)
    onnx.helper.set_model_props(whole, _metadata(backbone, trunk, preparation, class_names, trained))
    whole = canonical(whole)
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
        "backbone_weights_sha256": backbone.weights_digest,
        "backbone_weights_licence": backbone.recipe.weights_licence if backbone.weights else "none",
        "frozen_part": _FROZEN_PART[trunk.is_quantised] if trained != "all" else "none",
        "fine_tuned_from": {"head": "nothing: frozen backbone", "top": backbone.cut, "all": "the input"}[trained],
    }


def expected_by_keras(
    model: "keras.Model", backbone: Backbone, trunk: Trunk, preparation: Preparation, *, trained: Trained
) -> Expected:
    """Return what the exported graph has to compute: raw photos to probabilities, by Keras.

    That is the whole Keras model; but of a quantised backbone its own frozen graph, and only the trained rest by Keras.
    """
    if not trunk.is_quantised or trained == "all":
        return lambda photos: model.predict_on_batch(_prepared(photos, preparation).astype(np.float32))
    rest, source = _rest(model, backbone, trained)

    def by_parts(photos: Iterable[np.ndarray]) -> np.ndarray:
        features, activations = trunk.run(_prepared(photos, preparation), with_activations=source == ACTIVATIONS)
        return rest.predict_on_batch(features if activations is None else activations)

    return by_parts


def _prepared(photos: Iterable[np.ndarray], preparation: Preparation) -> np.ndarray:
    return np.stack([preparation(photo) for photo in photos])


def _rest(model: "keras.Model", backbone: Backbone, trained: Literal["head", "top"]) -> tuple["keras.Model", str]:
    """Return the trained part of the network, and the output of the frozen graph that it takes."""
    import keras

    border, source = (backbone.cut, ACTIVATIONS) if trained == "top" else (FEATURES, FEATURES)
    return keras.Model(model.get_layer(border).output, model.output, name="rest"), source


def refuse_difference(parity: Parity, path: Path, *, tolerance: float) -> None:
    """Refuse to ship a graph that computes something else than the Keras model.

    Args:
        parity: from `compare`.
        path: of the file that the graph was to replace.
        tolerance: the largest difference of any probability that is allowed.

    Raises:
        ExportMismatch: they differ by more.
    """
    if not parity.largest_difference <= tolerance:  # NaN is no agreement
        raise ExportMismatch(
            f"the ONNX graph and the Keras model differ by {parity.largest_difference:.2g} in a probability, over "
            f"{parity.images} photos (export_onnx.tolerance: {tolerance:g}). {path} is left as it was. This is a "
            f"defect of the conversion: please report it with the versions in requirements.lock."
        )


def compare(onnx_side: np.ndarray, expected: Expected, dataset: Dataset) -> Parity:
    """Compare what the ONNX file said of raw photos with what Keras says of them, prepared as for training.

    Args:
        onnx_side: probabilities of the photos, from `probabilities_of`, shape (n, num_classes).
        expected: from `expected_by_keras`.
        dataset: the n photos.
    """
    photos, batches = dataset.photos(), []
    for start in range(0, len(photos), _KERAS_BATCH):
        batches.append(expected(map(dataset.read_photo, photos[start : start + _KERAS_BATCH])))
    keras_side = np.concatenate(batches)
    difference = np.abs(onnx_side - keras_side)
    same = onnx_side.argmax(axis=1) == keras_side.argmax(axis=1)
    return Parity(len(dataset), float(difference.max()), float(difference.mean()), float(same.mean()))


def write_graph(path: Path, graph: onnx.ModelProto, promise: Promise | None) -> None:
    """Write a graph to ship, in the same bytes for the same graph; the file says of itself when it is to abstain."""
    if promise:
        facts = {entry.key: entry.value for entry in graph.metadata_props} | promise.as_metadata()
        graph, source = onnx.ModelProto(), graph
        graph.CopyFrom(source)
        onnx.helper.set_model_props(graph, dict(sorted(facts.items())))
    path.write_bytes(graph.SerializeToString(deterministic=True))
