"""From a photo of any size to the square that the network is given.

The arithmetic is an ONNX graph, and this very graph is the first part of model.onnx: what the network is trained on and
what it is given in service are the same numbers, not two implementations that agree.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 18  # the first with an antialiased Resize
IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class Preparation:
    """The centre square of a photo, at the network's size."""

    image_size: int  # side of the result in pixels
    crop_fraction: float  # side of the square that is taken, as a share of the photo's shorter side

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Prepare one photo; safe to call from several threads.

        Args:
            rgb: uint8, shape (height, width, 3), any size of at least one pixel.

        Returns:
            uint8, shape (image_size, image_size, 3).
        """
        (prepared,) = _session(self).run(["prepared"], {"image": rgb[None]})
        return np.asarray(prepared)[0]

    def build_graph(self) -> onnx.ModelProto:
        """Return the graph.

        Input `image`: uint8 RGB, shape (batch, height, width, 3), upright; the photos of one batch have one size.
        Output `prepared`: uint8, shape (batch, image_size, image_size, 3).

        side = floor(min(height, width) * crop_fraction + 1/2), at least 1; the square in the centre; one antialiased
        bilinear resize in float32, rounded once. With `exclude_outside=1` ONNX Resize weights the pixels at the border
        as Pillow does (without it they differ by up to 26 grey levels), so the result is Pillow's `crop` and
        `resize(BILINEAR)`, which rounds after each of two passes, give or take one grey level.
        """
        size = self.image_size
        constants = {
            "crop_fraction": np.array([self.crop_fraction], np.float32),
            "half": np.array([0.5], np.float32),
            "one": np.array([1], np.int64),
            "two": np.array([2], np.int64),
            "axes": np.array([1, 2], np.int64),
            "target": np.array([size, size], np.int64),
        }
        graph = helper.make_graph(
            _nodes(),
            "preparation",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])],
            [helper.make_tensor_value_info("prepared", TensorProto.UINT8, ["batch", size, size, 3])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Shape", ["image"], ["size"], start=1, end=3),
        helper.make_node("ReduceMin", ["size"], ["shorter"], keepdims=1),
        helper.make_node("Cast", ["shorter"], ["shorter_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["shorter_float", "crop_fraction"], ["side_exact"]),
        helper.make_node("Add", ["side_exact", "half"], ["side_plus"]),
        helper.make_node("Floor", ["side_plus"], ["side_floor"]),
        helper.make_node("Cast", ["side_floor"], ["side_integer"], to=TensorProto.INT64),
        helper.make_node("Max", ["side_integer", "one"], ["side"]),
        helper.make_node("Sub", ["size", "side"], ["margin"]),
        helper.make_node("Div", ["margin", "two"], ["start"]),
        helper.make_node("Add", ["start", "side"], ["end"]),
        helper.make_node("Slice", ["image", "start", "end", "axes"], ["square"]),
        # ONNX Runtime resizes float32 nearly twice as fast as uint8.
        helper.make_node("Cast", ["square"], ["square_float"], to=TensorProto.FLOAT),
        helper.make_node(
            "Resize",
            ["square_float", "", "", "target"],
            ["resized"],
            axes=[1, 2],
            mode="linear",
            antialias=1,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Round", ["resized"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["prepared"], to=TensorProto.UINT8),
    ]


@cache
def _session(preparation: Preparation) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # photos are prepared in parallel, each by one thread
    graph = preparation.build_graph().SerializeToString()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
