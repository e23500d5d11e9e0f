"""Small files like those that Regraft exports, written by hand: a few convolutions, fast, and as hard as wanted."""

import json
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from regraft.export.classifier import OnnxClassifier
from regraft.export.compose import IR_VERSION
from regraft.onnx_graphs.convert import canonical
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.photos.preparation import OPSET, Preparation

CHANNELS = 16


def conv_file(
    train: Dataset, preparation: Preparation, *, layers: int = 8, hard: Collection[int] = (), spread: float = 2.0**10
) -> onnx.ModelProto:
    """Return a file with random convolutions and a head that knows the training photos.

    In a hard layer half of the channels have values `spread` times as large, and the layer after it undoes that. What
    float32 computes is the same, since `spread` is a power of two and ReLU scales. Int8 has one scale for all channels
    of an activation and one for all inputs of a filter, and loses the other half.

    Args:
        train: photos to learn.
        preparation: the file's own.
        layers: convolutions.
        hard: numbers of layers, from 0 to layers - 2.
        spread: a power of two.
    """
    kernels, biases = _random_weights(layers)
    for layer in hard:
        kernels[layer][: CHANNELS // 2] *= spread
        biases[layer][: CHANNELS // 2] *= spread
        kernels[layer + 1][:, : CHANNELS // 2] /= spread
    plain = _file(preparation, train.class_names, kernels, biases, np.zeros((len(train.class_names), CHANNELS)))
    seen = _features(plain, train)
    middle = seen.mean(axis=0)
    means = np.stack([seen[train.rows.class_index == index].mean(axis=0) for index in range(len(train.class_names))])
    directions = (means - middle) / np.square(seen.std(axis=0) + 1e-6)
    return _file(preparation, train.class_names, kernels, biases, directions, middle)


def _random_weights(layers: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(0)
    kernels, biases = [], []
    for layer in range(layers):
        inputs = CHANNELS if layer else 3
        scale = np.sqrt(2 / (9 * inputs))
        kernels.append(random.normal(0, scale, (CHANNELS, inputs, 3, 3)).astype(np.float32))
        biases.append(random.normal(0, 0.1, CHANNELS).astype(np.float32))
    return kernels, biases


def _file(
    preparation: Preparation,
    class_names: list[str],
    kernels: list[np.ndarray],
    biases: list[np.ndarray],
    directions: np.ndarray,
    middle: np.ndarray | float = 0.0,
) -> onnx.ModelProto:
    before = preparation.build_graph().graph
    nodes = [
        *before.node,
        helper.make_node("Cast", ["prepared"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["active0"], perm=[0, 3, 1, 2]),
    ]
    tensors = [*before.initializer, numpy_helper.from_array(np.array(1 / 255, np.float32), "scale")]
    for layer, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        names = [f"active{layer}", f"kernel{layer}", f"bias{layer}"]
        strides = [2, 2] if layer < 2 else [1, 1]
        nodes.append(helper.make_node("Conv", names, [f"conv{layer}"], pads=[1, 1, 1, 1], strides=strides))
        nodes.append(helper.make_node("Relu", [f"conv{layer}"], [f"active{layer + 1}"]))
        tensors += [numpy_helper.from_array(kernel, names[1]), numpy_helper.from_array(bias, names[2])]
    bias = -(directions * middle).sum(axis=1)
    tensors += [
        numpy_helper.from_array(np.array([2, 3], np.int64), "sides"),
        numpy_helper.from_array(directions.T.astype(np.float32), "head"),
        numpy_helper.from_array(bias.astype(np.float32), "head_bias"),
    ]
    nodes += [
        helper.make_node("ReduceMean", [f"active{len(kernels)}", "sides"], ["features"], keepdims=0),
        helper.make_node("Gemm", ["features", "head", "head_bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(class_names)]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", CHANNELS]),
    ]
    graph = helper.make_graph(nodes, "made", list(before.input), outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    facts = {"image_size": preparation.image_size, "crop_fraction": preparation.crop_fraction}
    helper.set_model_props(model, {"class_names": json.dumps(class_names), "preprocessing": json.dumps(facts)})
    model = canonical(model)
    model.ir_version = IR_VERSION
    return model


def _features(model: onnx.ModelProto, photos: Dataset) -> np.ndarray:
    with TemporaryDirectory() as folder:
        path = Path(folder, "made.onnx")
        onnx.save(model, path)
        classifier = OnnxClassifier(path)
    return np.stack(list(Threads(0).map(lambda photo: classifier.features(photos.read_photo(photo)), photos.photos())))
