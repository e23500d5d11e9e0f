"""The rungs of the ladder from int8 to float32, each as a graph that is made when it is asked for.

    1.  per channel, ranges from the smallest to the largest value
    2.  per channel, ranges that leave out the most extreme values
    3.  as the better of the two, with 1, 2, 4, ... blocks of layers in float32, the worst ones first

One scale for all filters of a layer is no rung: it lost seven points of accuracy on the backbone of this project.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnxruntime.capi import onnxruntime_pybind11_state as states

from regraft.export.int8_photos import Material
from regraft.onnx_graphs.ladder import in_int8
from regraft.onnx_graphs.quantisable import Layer, Network, in_blocks
from regraft.onnx_graphs.ranges import Range, percentile, widest

_SHARE = 0.99999  # of the values of an activation, that the second rung keeps
_BLOCKS = 48  # of layers, at most: each costs a graph and some photos to find out how bad it is
_PHOTOS = 16  # that a divergence is measured on
# What ONNX Runtime, its tools and NumPy raise where a graph has something that cannot be quantised.
DEFECTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
DEFECTS += (states.Fail, states.InvalidArgument, states.InvalidGraph, states.NotImplemented, states.RuntimeException)


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder."""

    name: str  # as the metadata of a file says it
    build: Callable[[], onnx.ModelProto]  # the network's graph; raises one of DEFECTS


def rungs(network: Network, material: Material) -> Iterator[Rung]:
    """Yield the rungs in their order; what a later one needs is measured when it is reached."""
    photos = [material.calibrating[row] for row in range(len(material.calibrating))]
    whole = widest(network.graph, photos)
    yield Rung("int8: per channel, min-max", lambda: in_int8(network, whole))
    name = f"{100 * _SHARE:g}% of the values"
    ways = {"min-max": whole, name: percentile(network.graph, photos, whole, _SHARE)}
    yield Rung(f"int8: per channel, {name}", lambda: in_int8(network, ways[name]))
    divergence = _divergence_on(network, material)
    best = min(ways, key=lambda way: divergence(lambda: in_int8(network, ways[way])))
    worst = _worst_first(network, ways[best], divergence)
    count = 1
    while 2 * count <= len(worst):  # with most of them in float32 there is little left to gain
        left = [layer for block in worst[:count] for layer in block]
        rung = f"int8: per channel, {best}; {len(left)} of {len(network.layers)} layers in float32"
        yield Rung(rung, lambda left=left: in_int8(network, ways[best], left=left))
        count *= 2


def _worst_first(network: Network, ranges: Mapping[str, Range], divergence: "_Divergence") -> list[list[Layer]]:
    """Return the blocks of layers, first the one that alone in int8 moves the probabilities most."""
    blocks = in_blocks(network.layers, _BLOCKS)
    moved = [divergence(lambda block=block: in_int8(network, ranges, alone=block)) for block in blocks]
    return [blocks[index] for index in np.argsort(-np.array(moved), kind="stable")]


_Divergence = Callable[[Callable[[], onnx.ModelProto]], float]


def _divergence_on(network: Network, material: Material) -> _Divergence:
    """Return a function that says how far a graph's probabilities are from those of float32, in nats a photo.

    That is the mean Kullback-Leibler divergence over some training photos; infinite of a graph that cannot be made.
    """
    photos = material.calibrating.part(range(min(_PHOTOS, len(material.calibrating))))

    def logarithms(graph: onnx.ModelProto) -> np.ndarray:
        rows = material.rows_of(network.completed(graph, with_preparation=False), photos)
        return np.log(np.clip(material.probabilities(rows).astype(np.float64), 1e-7, 1))

    exact = logarithms(network.graph)

    def divergence(build: Callable[[], onnx.ModelProto]) -> float:
        try:
            ours = logarithms(build())
        except DEFECTS:
            return np.inf
        found = float((np.exp(exact) * (exact - ours)).sum(axis=1).mean())
        return found if np.isfinite(found) else np.inf

    return divergence
