"""From a photo of any size to the square that the network is given.

The arithmetic is an ONNX graph, and this very graph is the first part of model.onnx: what the network is trained on and
what it is given in service are the same numbers, not two implementations that agree.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 18  # the first with an antialiased Resize
IR_VERSION = 10
_LARGE = 2**21  # pixels of a square from which on it is prepared band by band
_BAND = 2**18  # pixels of a band, 3 MB in float32


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
        side = self._side(rgb)
        if side * side > _LARGE:
            return self._by_bands(rgb, side)
        (prepared,) = _session(self, "whole").run(None, {"image": rgb[None]})
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

    def _side(self, rgb: np.ndarray) -> int:
        """Compute the side of the square as the graph does, in float32."""
        exact = np.float32(min(rgb.shape[:2])) * np.float32(self.crop_fraction)
        return max(1, int(np.floor(exact + np.float32(0.5))))

    def _by_bands(self, rgb: np.ndarray, side: int) -> np.ndarray:
        """Do what the graph does to a large photo, a band of rows at a time: in float32 it takes 12 bytes a pixel.

        The resize is separable: ONNX Runtime makes a horizontal pass over each row and then a vertical one. So the two
        passes as two operations give the same bits, and no more than a band is in float32.
        """
        top, left = ((length - side) // 2 for length in rgb.shape[:2])
        square = rgb[None, top : top + side, left : left + side]
        narrow = np.empty((1, side, self.image_size, 3), np.float32)
        rows = max(1, _BAND // side)
        for start in range(0, side, rows):
            band = slice(start, start + rows)
            (narrow[:, band],) = _session(self, "horizontal").run(None, {"image": square[:, band]})
        (prepared,) = _session(self, "vertical").run(None, {"narrow": narrow})
        return np.asarray(prepared)[0]

    def _build_pass(self, direction: Literal["horizontal", "vertical"]) -> onnx.ModelProto:
        """Return one of the two passes as a graph: from `image` to `narrow`, or from there to `prepared`."""
        size = self.image_size
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3])
        narrow = helper.make_tensor_value_info("narrow", TensorProto.FLOAT, [1, "height", size, 3])
        prepared = helper.make_tensor_value_info("prepared", TensorProto.UINT8, [1, size, size, 3])
        if direction == "horizontal":
            nodes = [_cast("image", "image_float", TensorProto.FLOAT), _resize("image_float", "narrow", [2])]
            ends = image, narrow
        else:
            nodes = [_resize("narrow", "resized", [1]), *_rounded()]
            ends = narrow, prepared
        target = numpy_helper.from_array(np.array([size], np.int64), "target")
        graph = helper.make_graph(nodes, direction, [ends[0]], [ends[1]], [target])
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
        _cast("square", "square_float", TensorProto.FLOAT),
        _resize("square_float", "resized", [1, 2]),
        *_rounded(),
    ]


def _cast(source: str, result: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], to=to)


def _resize(source: str, result: str, axes: list[int]) -> onnx.NodeProto:
    return helper.make_node(
        "Resize",
        [source, "", "", "target"],
        [result],
        axes=axes,
        mode="linear",
        antialias=1,
        exclude_outside=1,
        coordinate_transformation_mode="half_pixel",
    )


def _rounded() -> list[onnx.NodeProto]:
    return [helper.make_node("Round", ["resized"], ["rounded"]), _cast("rounded", "prepared", TensorProto.UINT8)]


@cache
def _session(
    preparation: Preparation, part: Literal["whole", "horizontal", "vertical"]
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # photos are prepared in parallel, each by one thread
    graph = preparation.build_graph() if part == "whole" else preparation._build_pass(part)
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
