"""The shipped file in int8: what it costs of the accuracy, and the file itself.

The cost needs no labels. Where float32 names class s and int8 class t, the calibrated probabilities of float32 tell how
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
from typing import Any

import numpy as np
import onnx
from onnxruntime.capi import onnxruntime_pybind11_state as states

from regraft.core.statistics import Interval, tango_interval
from regraft.export.abstention import choose_threshold_in_use
from regraft.export.calibration import rows_for_use, shares_of
from regraft.export.classifier import OnnxClassifier, with_facts
from regraft.export.finishing import TOLERANCE, extreme_pictures, novel_from
from regraft.export.scoring import Answers
from regraft.onnx_graphs.int8 import quantised
from regraft.photos.dataset import Dataset
from regraft.serving.novelty import ABOVE, PHOTOS, SHARE, share_of
from regraft.serving.promise import NO_THRESHOLD, Promise
from regraft.training.metrics import score

FLOAT32, INT8 = "float32", "int8, per channel"
PRECISION = "precision"  # in the metadata: INT8; a float32 file has no such entry
# Largest gap between the two most probable classes by float32 of a photo to which int8 gives another class.
MAX_GAP = 0.6
_CHI_SQUARE = 3.841459  # its 95 % quantile, one degree of freedom
_IN_A_BATCH = 32  # photos that are run together and one by one
# What ONNX Runtime, its tools and NumPy raise where a graph has something that cannot be quantised.
DEFECTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
DEFECTS += (states.Fail, states.InvalidArgument, states.InvalidGraph, states.NotImplemented, states.RuntimeException)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of int8 with float32, over independent photos."""

    images: int
    differing: int  # photos with another most probable class
    loss: Interval  # of accuracy; its bounds are those of Tango at 95 %
    largest_gap: float  # between the first two probabilities of float32, over the photos that differ


def agreement_of(exact: np.ndarray, ours: np.ndarray) -> Agreement:
    """Compare probabilities of independent photos outside training: float32 and int8, shape (n, num_classes)."""
    rows, first, second = np.arange(len(exact)), exact.argmax(axis=1), ours.argmax(axis=1)
    differs = first != second
    b, c = (float((exact[rows, chosen].astype(np.float64) * differs).sum()) for chosen in (first, second))
    found, first_two = tango_interval(b, c, len(exact)), np.sort(exact, axis=1)[differs][:, -2:]
    return Agreement(
        images=len(exact),
        differing=int(differs.sum()),
        loss=Interval(0.0 - found.value, 0.0 - found.high, 0.0 - found.low),
        largest_gap=float((first_two[:, -1] - first_two[:, 0]).max(initial=0)),
    )


def fewest_photos(budget: float) -> int:
    """Return how many photos show a loss within a budget if int8 differs on none of them: 765 for 0.005.

    Without a difference Tango's upper bound is z^2 / (n + z^2).
    """
    return ceil(_CHI_SQUARE * (1 - budget) / budget)


def verdict_of(agreement: Agreement, budget: float) -> tuple[bool, str]:
    """Return whether int8 is good enough to ship, and why."""
    loss = agreement.loss
    said = (
        f"{agreement.differing} of {agreement.images} photos get another class than by float32; by its probabilities "
        f"that costs {loss.value:.2%} of accuracy ({loss.low:.2%} to {loss.high:.2%})"
    )
    if not loss.high <= budget:
        return False, f"{said}: the upper bound is above {budget:.2%} (quantise.budget)"
    if agreement.largest_gap > MAX_GAP:
        gap = f"{agreement.largest_gap:.2f} apart, more than {MAX_GAP:g}"
        return False, f"{said}, but for one of them the first two probabilities of float32 are {gap}"
    return True, f"{said}: the upper bound is within {budget:.2%}"


def in_int8(source: OnnxClassifier, calibrating: Dataset) -> onnx.ModelProto:
    """Return a float32 file in int8, with its metadata; one of `DEFECTS` where that cannot be done.

    Args:
        source: the float32 file.
        calibrating: training photos, whose activations give the ranges.
    """
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


def unsound(file: OnnxClassifier, photos: Dataset) -> str | None:
    """Return why a file cannot ship whatever its loss: in a batch, or of extreme shapes, it is wrong; None if it can.

    Args:
        file: in int8.
        photos: real ones.
    """
    some = photos.head(_IN_A_BATCH)
    prepared = np.stack([file.preparation(some.read_photo(photo)) for photo in some.photos()])
    alone = np.concatenate([file.batch(photo[None]) for photo in prepared])
    if not np.abs(file.batch(prepared) - alone).max(initial=0) <= TOLERANCE:
        return f"in a batch of {len(prepared)} photos its probabilities differ from those of each photo alone"
    for picture in extreme_pictures():
        said = file.batch(picture[None])[0]
        if not (np.isfinite(said).all() and abs(float(said.sum()) - 1) <= 1e-4):
            return f"its probabilities for a picture of shape {picture.shape} are no distribution"
    return None


def decided_anew(
    source: OnnxClassifier, exact: Answers, ours: Answers, class_indices: np.ndarray, target_precision: float | None
) -> tuple[dict[str, str | None], dict[str, Any]]:
    """Return metadata of the int8 file, and of its report, that follow from its own answers on the val photos.

    The head, its temperature and the prototypes are those of the float32 file.

    Args:
        source: the float32 file.
        exact: its answers.
        ours: those of the int8 file.
        class_indices: of these photos, shape (n,).
        target_precision: section `evaluate` of params.yaml.
    """
    in_use = rows_for_use(class_indices, source.class_names, shares_of(source.metadata))
    kept = choose_threshold_in_use(class_indices, ours.probabilities, target_precision, in_use)
    after = score(class_indices, ours.probabilities)
    facts: dict[str, str | None] = dict.fromkeys([*Promise(0, 0, 0).as_metadata(), NO_THRESHOLD])
    facts |= kept.as_metadata()
    facts["val"] = json.dumps({"images": len(class_indices), "accuracy": after.accuracy, "log_loss": after.log_loss})
    report: dict[str, Any] = {"abstention": kept.words}
    if ours.novelty is not None and exact.novelty is not None and source.novel_above is not None:
        above, shift = novel_from(ours.novelty), ours.novelty - exact.novelty
        facts |= {ABOVE: repr(above), SHARE: repr(share_of(len(shift))), PHOTOS: str(len(shift))}
        report["novelty"] = {
            "mean_shift": float(shift.mean()),
            "largest_shift": float(np.abs(shift).max()),
            "novel_above": {"float32": source.novel_above, "int8": above},
        }
    return facts, report
