"""The whole network in Keras' own format, which no stage needs: for whoever goes on with it in Keras."""

import json
from dataclasses import replace
from pathlib import Path

from regraft.backbones.catalogue import choose_backbone
from regraft.core.config import BackboneChoice
from regraft.core.errors import RegraftError
from regraft.core.files import reading
from regraft.export.classifier import OnnxClassifier
from regraft.export.finishing import as_shipped
from regraft.training.keras_network import build_network, save_model
from regraft.training.network_file import read_network, start_keras


def write_keras(path: Path, choice: BackboneChoice, *, network: Path, onnx: Path) -> None:
    """Write the network with the temperature that the file has; the same weights give the same bytes.

    Args:
        path: of the .keras file.
        choice: of the backbone that was trained.
        network: the file with what was trained of it.
        onnx: the file that was exported from it.

    Raises:
        FileNotFoundError: there is no such network.
        Damaged: the network is damaged.
        RegraftError: there is no such ONNX file, it is none of Regraft's, or it was made from another backbone.
    """
    trained, backbone = read_network(network), choose_backbone(choice)
    facts = OnnxClassifier(onnx).metadata
    with reading(onnx, "a model that Regraft exported"):
        side = json.loads(facts["preprocessing"])["image_size"]
        exported = [facts[name] for name in ("backbone", "backbone_preprocessing", "backbone_weights_sha256")]
    if (*exported, side) != (backbone.name, backbone.preprocessing, backbone.weights_digest, backbone.image_size):
        raise RegraftError(
            f"{onnx} was trained on {exported[0]} at {side} pixels, and params.yaml names {backbone.name} at "
            f"{backbone.image_size} pixels, or other weights or preprocessing. Run `regraft retrain`, or put "
            f"params.yaml back."
        )
    with reading(onnx, "a model that Regraft exported"):
        head = as_shipped(trained.head, facts)
    start_keras(0)
    save_model(path, build_network(backbone, replace(trained, head=head)))
