"""The shipped file in int8, and what it costs of the accuracy.

The cost needs no labels. Where float32 names class s and int8 class t, the calibrated probabilities of float32 say how
often such a photo is an s or a t. Over the photos on which the two differ

    b = sum of p(s)             photos that only float32 is expected to name correctly
    c = sum of p(t)             photos that only int8 is expected to name correctly

and Tango's interval of (b - c) / n is that of the loss. Only val photos count: a network is sure of photos that it was
trained on, where the two hardly ever differ.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import onnx
from onnxruntime.capi import onnxruntime_pybind11_state as states

from regraft.core.statistics import Interval, tango_interval
from regraft.export.abstention import Choice
from regraft.export.classifier import Answers, OnnxClassifier, with_facts
from regraft.export.finishing import novel_from
from regraft.onnx_graphs.int8 import quantised
from regraft.photos.dataset import Dataset
from regraft.serving.thresholds import ABOVE, NO_THRESHOLD, PHOTOS, SHARE, Promise, share_of
from regraft.training.metrics import score

FLOAT32, INT8 = "float32", "int8, per channel"
PRECISION = "precision"  # in the metadata: INT8; a float32 file has no such entry
_CHI_SQUARE = 3.841459  # its 95 % quantile, one degree of freedom
# What ONNX Runtime, its tools and NumPy raise where a graph has something that cannot be quantised.
DEFECTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
DEFECTS += (states.Fail, states.InvalidArgument, states.InvalidGraph, states.NotImplemented, states.RuntimeException)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of int8 with float32, over independent photos."""

    images: int
    differing: int  # photos with another most probable class
    loss: Interval  # of accuracy; its bounds are those of Tango at 95 %


def agreement_of(exact: np.ndarray, ours: np.ndarray) -> Agreement:
    """Compare probabilities of independent photos outside training: float32 and int8, shape (n, num_classes)."""
    rows, first, second = np.arange(len(exact)), exact.argmax(axis=1), ours.argmax(axis=1)
    differs = first != second
    b, c = (float((exact[rows, chosen].astype(np.float64) * differs).sum()) for chosen in (first, second))
    found = tango_interval(b, c, len(exact))
    loss = Interval(0.0 - found.value, 0.0 - found.high, 0.0 - found.low)
    return Agreement(len(exact), int(differs.sum()), loss)


def fewest_photos(budget: float) -> int:
    """Return how many photos show a loss within a budget if int8 differs on none of them: 765 for 0.005.

    Without a difference Tango's upper bound is z^2 / (n + z^2).
    """
    return ceil(_CHI_SQUARE * (1 - budget) / budget)


def verdict_of(agreement: Agreement, budget: float) -> tuple[bool, str]:
    """Return whether int8 is good enough to ship, and why."""
    loss = agreement.loss
    passed = loss.high <= budget
    return passed, (
        f"{agreement.differing} of {agreement.images} photos get another class than by float32; by its probabilities "
        f"that costs {loss.value:.2%} of accuracy ({loss.low:.2%} to {loss.high:.2%}): the upper bound is "
        f"{'within' if passed else 'above'} {budget:.2%} (quantise.budget)"
    )


def in_int8(source: OnnxClassifier, calibrating: Dataset) -> onnx.ModelProto:
    """Return a float32 file in int8, with its metadata; one of `DEFECTS` where that cannot be done."""
    if not len(calibrating):
        raise ValueError("there is no training photo to take the ranges of activations from")

    def photos() -> Iterator[np.ndarray]:
        for photo in calibrating.photos():
            with calibrating.opened(photo) as rgb:
                yield rgb

    graph = quantised(onnx.load_from_string(source.contents), photos())
    frozen = source.metadata.get("frozen_part", "none")
    facts = {"frozen_part": "none" if frozen == "none" else "int8 weights and activations"}
    return with_facts(graph, facts | {PRECISION: INT8, "quantised_from": source.digest})


def facts_of_int8(ours: Answers, class_indices: np.ndarray, choice: Choice) -> dict[str, str | None]:
    """Return the metadata of the int8 file that follow from its own answers; its head is that of the float32 file."""
    after = score(class_indices, ours.probabilities)
    facts: dict[str, str | None] = dict.fromkeys([*Promise(0, 0, 0).as_metadata(), NO_THRESHOLD])
    facts |= choice.as_metadata()
    facts["val"] = json.dumps({"images": len(class_indices), "accuracy": after.accuracy, "log_loss": after.log_loss})
    if ours.novelty is not None:
        count = len(ours.novelty)
        facts |= {ABOVE: repr(novel_from(ours.novelty)), SHARE: repr(share_of(count)), PHOTOS: str(count)}
    return facts
