"""The int8 file as it ships: proven, and with what it says of itself found anew where int8 changes it."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from regraft.export.abstention import choose_threshold_in_use
from regraft.export.class_shares import rows_for_use, shares_of
from regraft.export.classifier import OnnxClassifier
from regraft.export.compose import write_graph
from regraft.export.int8_budget import Choice
from regraft.export.int8_photos import Material
from regraft.export.onnx_head import novel_from
from regraft.export.parity import extreme_pictures
from regraft.export.two_parts import as_bytes, with_facts
from regraft.photos.dataset import Dataset
from regraft.serving.novelty import ABOVE, PHOTOS, SHARE, share_of
from regraft.serving.promise import NO_THRESHOLD, Promise
from regraft.training.metrics import score

PRECISION = "precision"  # in the metadata: the rung; a float32 file has no such entry
_PROVEN = 32  # photos that go through the whole file


def what_is_wrong(
    graph: onnx.ModelProto, source: OnnxClassifier, photos: Dataset, rows: np.ndarray, *, tolerance: float
) -> str | None:
    """Return in which way a file is not the one that was judged, or not right on some input; None if in none.

    From the raw file it has to say of photos what it was judged by; of a batch what it says one by one; and of pictures
    of extreme shapes something that is a distribution.

    Args:
        graph: the int8 file.
        source: the float32 file.
        photos: what was judged.
        rows: what it was judged by, as `Material.rows_of` returns it.
        tolerance: the largest difference of any probability that is allowed.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write_graph(path, with_facts(graph, dict(source.metadata)))
        file = OnnxClassifier(path)
    some, classes = photos.head(_PROVEN), len(source.class_names)
    whole = np.stack([file.probabilities(some.read_photo(photo)) for photo in some.photos()])
    if not np.abs(whole - rows[: len(whole), :classes]).max(initial=0) <= tolerance:
        return "from the raw file it says something else than from prepared pixels"
    prepared = np.stack([file.preparation(some.read_photo(photo)) for photo in some.photos()])
    alone = np.concatenate([file.batch(photo[None]) for photo in prepared])
    if not np.abs(file.batch(prepared) - alone).max(initial=0) <= tolerance:
        return f"in a batch of {len(prepared)} photos it says something else than of each alone"
    for picture in extreme_pictures():
        said = file.batch(picture[None])[0]
        if not (np.isfinite(said).all() and abs(float(said.sum()) - 1) <= 1e-4):
            return f"its probabilities of a picture of shape {picture.shape} are none"
    return None


@dataclass(frozen=True, slots=True)
class Finished:
    """A file in int8, and what changed in what it says."""

    contents: bytes
    report: dict[str, Any]  # for reports/int8.json


def finished(choice: Choice, material: Material, target_precision: float | None) -> Finished:
    """Return the file of a rung.

    The head, its temperature and the prototypes are those of the float32 file. What was found on val by what the file
    says is found again, on the val photos that judged, by what this one says: from which probability on it answers,
    and what counts as novel.

    Args:
        choice: a rung that is int8.
        material: what it was chosen on.
        target_precision: section `evaluate` of params.yaml.
    """
    assert choice.graph is not None
    assert choice.rows is not None
    assert choice.exact is not None
    source, labels = material.classifier, material.class_indices
    said = material.probabilities(choice.rows)
    facts: dict[str, str | None] = {PRECISION: choice.rung, "quantised_from": source.digest}
    if source.metadata.get("frozen_part", "none") != "none":
        facts["frozen_part"] = "int8 weights and activations"
    in_use = rows_for_use(labels, source.class_names, shares_of(source.metadata))
    kept = choose_threshold_in_use(labels, said, target_precision, in_use)
    facts |= dict.fromkeys([*Promise(0, 0, 0).as_metadata(), NO_THRESHOLD]) | kept.as_metadata()
    report: dict[str, Any] = {"abstention": kept.words}
    if len(said):
        after = score(labels, said)
        facts["val"] = json.dumps({"images": len(said), "accuracy": after.accuracy, "log_loss": after.log_loss})
    if len(said) and source.has_novelty and source.novel_above is not None:
        before, now = choice.exact[:, -1], choice.rows[:, -1]
        above = novel_from(now)
        facts |= {ABOVE: repr(above), SHARE: repr(share_of(len(now))), PHOTOS: str(len(now))}
        report["novelty"] = {
            "mean_shift": float((now - before).mean()),
            "largest_shift": float(np.abs(now - before).max()),
            "above_that_of_float32": float((now > source.novel_above).mean()),  # share of val
            "novel_above": {"float32": source.novel_above, "int8": above},
        }
    graph = with_facts(choice.graph, {**source.metadata, **facts})
    onnx.checker.check_model(graph, full_check=True)
    return Finished(as_bytes(graph), report)
