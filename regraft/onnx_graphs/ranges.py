"""How large the activations of a graph get on photos, from which their int8 levels follow."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

_BINS = 2048
_VALUES = 8192  # of a tensor and a photo that its histogram counts, evenly spread: many more change no percentile much
Range = tuple[float, float]


def widest(graph: onnx.ModelProto, photos: Sequence[np.ndarray]) -> dict[str, Range]:
    """Run a graph over photos and return the smallest and the largest value of each float32 tensor in it.

    Args:
        graph: with the types of its tensors, as `quant_pre_process` writes them; one input.
        photos: at least one, each of the shape of that input without its first dimension.
    """
    names = float_tensors(graph)
    lowest = np.full(len(names), np.inf, np.float32)
    highest = -lowest
    for tensors in _values(graph, names, photos):
        for index, values in enumerate(tensors):
            lowest[index] = min(lowest[index], values.min())
            highest[index] = max(highest[index], values.max())
    return dict(zip(names, zip(lowest.tolist(), highest.tolist(), strict=True), strict=True))


def percentile(
    graph: onnx.ModelProto, photos: Sequence[np.ndarray], ranges: Mapping[str, Range], share: float
) -> dict[str, Range]:
    """Return ranges that hold this share of the values of each tensor; what is left out lies at both ends.

    Nothing is cut off at an end that is zero, as the lower one after a ReLU: it is the most frequent value there.

    Args:
        graph: as of `widest`.
        photos: the same.
        ranges: from `widest`.
        share: 0 to 1.
    """
    names = [name for name, (low, high) in ranges.items() if np.isfinite([low, high]).all() and low < high]
    if not names:
        return dict(ranges)
    counts = np.zeros((len(names), _BINS), np.int64)
    for tensors in _values(graph, names, photos):
        for index, values in enumerate(tensors):
            some = np.ravel(values)[:: max(1, values.size // _VALUES) | 1]  # an odd step: no column alone
            counts[index] += np.histogram(some, _BINS, ranges[names[index]])[0]
    return {**ranges, **{name: _cut(ranges[name], row, share) for name, row in zip(names, counts, strict=True)}}


def _cut(whole: Range, counts: np.ndarray, share: float) -> Range:
    """Return the part of a range that holds a share of the values, which were counted in bins of equal width."""
    low, high = whole
    edges = np.linspace(low, high, len(counts) + 1)
    below = np.cumsum(counts) / counts.sum()
    rest = (1 - share) / (2 if low < 0 < high else 1)
    first = int(np.searchsorted(below, rest, side="right")) if low < 0 else 0
    last = int(np.searchsorted(below, 1 - rest)) + 1 if high > 0 else len(counts)
    return float(edges[first]), float(edges[min(last, len(counts))])


def float_tensors(graph: onnx.ModelProto) -> list[str]:
    """Return the names of what the nodes of a graph make, as far as it is float32."""
    types: Mapping[str, int] = {
        value.name: value.type.tensor_type.elem_type for value in [*graph.graph.value_info, *graph.graph.output]
    }
    made = [name for node in graph.graph.node for name in node.output]
    return [name for name in made if types.get(name) == TensorProto.FLOAT]


def _values(
    graph: onnx.ModelProto, names: Sequence[str], photos: Sequence[np.ndarray]
) -> Iterator[Sequence[np.ndarray]]:
    """Yield what becomes of these tensors, photo by photo."""
    session = _with_outputs(graph, names)
    (given,) = session.get_inputs()
    for photo in photos:
        yield [np.asarray(values) for values in session.run(list(names), {given.name: photo[None]})]


def _with_outputs(graph: onnx.ModelProto, names: Sequence[str]) -> onnxruntime.InferenceSession:
    """Return a session of a graph that gives these tensors too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    there = {output.name for output in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in there
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
