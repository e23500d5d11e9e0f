"""The whole network in Keras' own format, which no stage needs: for whoever goes on with it in Keras."""

import json
from pathlib import Path

import onnxruntime

from regraft.backbones.catalogue import choose_backbone
from regraft.config import BackboneChoice
from regraft.errors import RegraftError
from regraft.files import reading
from regraft.training.keras_models import save_model, start_keras
from regraft.training.keras_network import build_network
from regraft.training.network_file import read_network


def write_keras(path: Path, choice: BackboneChoice, *, network: Path, onnx: Path) -> None:
    """Write the network; the same weights give the same bytes.

    Args:
        path: of the .keras file.
        choice: of the backbone that was trained.
        network: the file with what was trained of it.
        onnx: the file that was exported from it.

    Raises:
        FileNotFoundError: one of both files is missing.
        Damaged: one of both is damaged.
        RegraftError: the files were made from another backbone.
    """
    trained, backbone = read_network(network), choose_backbone(choice)
    with reading(onnx, "a model that Regraft exported"):
        session = onnxruntime.InferenceSession(onnx.read_bytes(), providers=["CPUExecutionProvider"])
        facts = session.get_modelmeta().custom_metadata_map
        exported = facts["backbone"], facts["backbone_weights_sha256"], json.loads(facts["preprocessing"])["image_size"]
    if exported != (backbone.name, backbone.weights_digest, backbone.image_size):
        raise RegraftError(
            f"{network} was trained on {exported[0]} at {exported[2]} pixels, and params.yaml names {backbone.name} at "
            f"{backbone.image_size} pixels, or other weights. Run `regraft retrain`, or put params.yaml back."
        )
    start_keras(0)
    save_model(path, build_network(backbone, trained))
