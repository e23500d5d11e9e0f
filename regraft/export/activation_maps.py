"""Class activation maps: which parts of a photo speak for a class, exactly.

Where features are the mean over positions, and the head is one linear layer, sums may be taken in another order:

    logit_c = bias_c + sum_k kernel_kc * mean_xy A_kxy = bias_c + mean_xy map_cxy,  map_cxy = sum_k kernel_kc * A_kxy

So a map is no estimate: its mean is the logit but for the bias. It costs one small product beside the network.

Source: Zhou et al. 2016, "Learning Deep Features for Discriminative Localization".
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from regraft.core.errors import RegraftError
from regraft.onnx_graphs.parsing import parse_graph
from regraft.serving.shipped_model import ShippedModel, run_session, start_session

MAPS = "maps"
_SAME_NUMBERS = ("Flatten", "Identity", "Reshape", "Squeeze")  # of a tensor that has one number per channel
_CHANNELS_FIRST, _CHANNELS_LAST = ((2, 3), (-2, -1)), ((1, 2), (-3, -2))  # positions, among batch and channels


class ActivationMaps:
    """A shipped file that also says where it looked, on the CPU."""

    def __init__(self, path: Path) -> None:
        """Load a file.

        Raises:
            RegraftError: it is not a model that Regraft exported, or its head has a hidden layer, or it has no pooling
                before the head: then no map is exact.
        """
        shipped = ShippedModel(path)
        self.class_names = shipped.class_names
        model = with_maps(parse_graph(shipped.contents))
        if model is None:
            raise RegraftError(
                f"{path} has no exact activation maps: that takes one linear layer on features that are means over "
                f"positions. Set train_head.kind to linear for a file that has them."
            )
        self._session = start_session(model.SerializeToString())
        self._crop_fraction = crop_fraction_of(shipped.metadata)

    def __call__(self, photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the file says of a photo, and where in it that is said.

        Returns:
            Probabilities, float32, shape (num_classes,), and maps, float32, shape (num_classes, rows, columns), such
            as 7 x 7. They cover the centre square of the photo, see `square`, and nothing beside it. `heat` makes one
            of them fit to be drawn.
        """
        probabilities, maps = run_session(self._session, photo, ["probabilities", MAPS])
        return probabilities, maps

    def square(self, photo: np.ndarray) -> tuple[int, int, int]:
        """Return left, top and side, in pixels, of the part of a photo that the network sees and maps cover."""
        height, width = photo.shape[:2]
        # As the graph computes it, in float32: see `Preparation.build_graph`.
        side = max(1, int(np.float32(min(height, width)) * np.float32(self._crop_fraction) + np.float32(0.5)))
        return (width - side) // 2, (height - side) // 2, side


def crop_fraction_of(metadata: Mapping[str, str]) -> float:
    """Return the side of the square that a file takes, as a share of the photo's shorter side; 1 if it does not say."""
    try:
        return float(json.loads(metadata["preprocessing"])["crop_fraction"])
    except (KeyError, TypeError, ValueError):
        return 1.0


def heat(maps: np.ndarray, class_index: int) -> np.ndarray:
    """Return how much each position speaks for a class, more than for the classes on average.

    What all maps have in common moves all logits alike and no probability, so their mean is taken off first.

    Returns:
        float32, shape (rows, columns), 0 (nothing for it, or against it) to 1 (most).
    """
    evidence = np.maximum(maps[class_index] - maps.mean(axis=0), 0)
    return evidence / (evidence.max() or 1)


def with_maps(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return a shipped graph with one more output, or None where it would not be exact.

    Returns:
        The same graph, whose last output is `maps`: float32, shape (batch, num_classes, rows, columns). Of each map the
        mean, plus the class's bias, is the logit.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    softmax = makers.get("probabilities")
    layer = makers.get(softmax.input[0]) if softmax is not None and softmax.op_type == "Softmax" else None
    # As `head_graph` writes it: Gemm without attributes.
    if layer is None or layer.op_type != "Gemm" or layer.attribute or layer.input[1] not in arrays:
        return None
    node = makers.get(layer.input[0])
    while node is not None and node.op_type in _SAME_NUMBERS:
        node = makers.get(node.input[0])
    axes = _pooled_axes(node, arrays) if node is not None else None
    if node is None or axes not in _CHANNELS_FIRST + _CHANNELS_LAST:
        return None
    kernel, seen = arrays[layer.input[1]], node.input[0]
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    if axes in _CHANNELS_FIRST:
        whole.graph.node.append(helper.make_node("Transpose", [seen], ["maps_seen"], perm=[0, 2, 3, 1]))
        seen = "maps_seen"
    whole.graph.node.append(helper.make_node("MatMul", [seen, layer.input[1]], ["maps_last"]))
    whole.graph.node.append(helper.make_node("Transpose", ["maps_last"], [MAPS], perm=[0, 3, 1, 2]))
    shape = ["batch", kernel.shape[1], "rows", "columns"]
    whole.graph.output.append(helper.make_tensor_value_info(MAPS, TensorProto.FLOAT, shape))
    return whole


def _pooled_axes(node: onnx.NodeProto, arrays: Mapping[str, np.ndarray]) -> tuple[int, ...] | None:
    """Return over which axes a node takes the mean; None if it takes none."""
    if node.op_type == "GlobalAveragePool":
        return _CHANNELS_FIRST[0]
    if node.op_type != "ReduceMean" or len(node.input) < 2:
        return None
    return tuple(sorted(arrays[node.input[1]].tolist()))
