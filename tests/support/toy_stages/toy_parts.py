"""What the toy stages share: a backbone that sees the mean colour, and the order to die in the middle of a stage."""

import json
import os
import signal
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from regraft.backbones.trunk import Trunk
from regraft.core.config import Params
from regraft.core.files import fingerprint
from regraft.features.extraction import Extractor
from regraft.features.forward_passes import open_feature_store
from regraft.photos.views import choose_views

SIDE = 8


def obey(stage: str, moment: str) -> None:
    """Kill this process and all that were started with it if a test says so; and say that the stage ran."""
    with Path("runs.log").open("a") as log:
        log.write(f"{stage}\n" if moment == "begin" else "")
    order = Path("orders", f"{stage}.{moment}")
    if order.exists():
        order.unlink()
        os.killpg(os.getpgrp(), signal.SIGKILL)


class MeanColour:
    """Runs the backbone."""

    name = "a mean"
    is_parallel = True

    def run(self, images: np.ndarray, *, with_activations: bool) -> tuple[np.ndarray, None]:
        """Return the mean red, green and blue of each image, 0 to 1."""
        return images.mean((1, 2), dtype=np.float32) / 255, None


def extractor_of(params: Params) -> Extractor:
    """Return the real extractor around the toy's backbone."""
    trunk = Trunk(MeanColour(), Path("none"), fingerprint("mean colour"), SIDE, (1, 1, 3), 3, None)
    views = choose_views(params.preprocess, image_size=SIDE, count=params.cache_features.views)
    return Extractor(views, trunk, open_feature_store(params.paths.store, trunk), params.machine)


def classifier_of(weights: np.ndarray, class_names: list[str]) -> bytes:
    """Return a model that names the class of a photo from its mean colour and 1: `weights` has shape (4, classes)."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])
    said = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(class_names)])
    constants = {
        "axes": np.array([1, 2], np.int64),
        "full": np.array([255], np.float32),
        "kernel": weights[:3].astype(np.float32),
        "bias": weights[3].astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["sums"], keepdims=0),
        helper.make_node("Div", ["sums", "full"], ["mean"]),
        helper.make_node("MatMul", ["mean", "kernel"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "toy", [image], [said], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"class_names": json.dumps(class_names)})
    return model.SerializeToString(deterministic=True)
