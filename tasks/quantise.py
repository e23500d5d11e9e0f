"""Stage 10 of 11: the same file in int8, if that is shown to cost next to nothing of the accuracy, else as it is.

Reads models/model.onnx, build/dataset.parquet, build/left_out.parquet, build/manifest.parquet and data/raw; writes
models/model.int8.onnx and reports/int8.json. The file is always there: where nothing is to be quantised, or nothing is
good enough, it is models/model.onnx byte for byte, and the report says why.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx

from regraft.core.config import Params
from regraft.core.files import readable_bytes, sha256_of, write_bytes, write_json
from regraft.core.statistics import tango_interval
from regraft.export.classifier import OnnxClassifier
from regraft.export.int8_budget import FLOAT32, choose
from regraft.export.int8_file import finished, what_is_wrong
from regraft.export.int8_photos import material_of
from regraft.export.processor import this_processor
from regraft.export.scoring import probabilities_of
from regraft.photos.dataset import Dataset, Split, read_dataset
from regraft.photos.elsewhere import elsewhere_of
from regraft.photos.groups import first_of_each, groups_of
from regraft.photos.images import Threads
from regraft.photos.left_out import unseen
from regraft.photos.manifest import read_manifest
from regraft.photos.sample import with_sample
from tasks.progress import Progress
from tasks.stage import stage


@dataclass(frozen=True)
class _Made:
    contents: bytes
    rung: str
    words: str
    report: Mapping[str, Any] = field(default_factory=dict)


@stage
def quantise(params: Params, progress: Progress) -> None:
    """Write the int8 file; test photos decide nothing, and are only reported."""
    paths, threads = params.paths, Threads(params.machine.workers, progress("photos"))
    if params.quantise.mode == "off":
        made = _Made(paths.onnx.read_bytes(), FLOAT32, "quantise.mode is off")
    else:
        made = _make(params, threads)
    write_bytes(paths.onnx_int8, made.contents)
    size, before = paths.onnx_int8.stat().st_size, paths.onnx.stat().st_size
    smaller = "" if made.rung == FLOAT32 else f"; {readable_bytes(size)} instead of {readable_bytes(before)}"
    report = {
        "sha256": sha256_of(paths.onnx_int8),
        "bytes": size,
        "rung": made.rung,
        "words": f"{made.words}{smaller}",
        "processor": str(this_processor()),  # int8 is right on all, and much faster on those that multiply bytes
    }
    if made.rung != FLOAT32:
        report["test"] = _on_test(params, _independent(params, "test"), threads)
    write_json(paths.reports / "int8.json", report | dict(made.report))


def _make(params: Params, threads: Threads) -> _Made:
    """Return the file of the first rung that is good enough, or the float32 file."""
    settings, paths = params.quantise, params.paths
    contents = paths.onnx.read_bytes()
    classifier, judged = OnnxClassifier(paths.onnx), _independent(params, "val").head(settings.images)
    calibrating = _independent(params, "train").head(settings.calibration_images)

    def refuse(graph: onnx.ModelProto, rows: np.ndarray) -> str | None:
        return what_is_wrong(graph, classifier, judged, rows, tolerance=params.export_onnx.tolerance)

    with material_of(classifier, judged, calibrating, threads, scratch=paths.store) as material:
        choice = choose(onnx.load_from_string(contents), material, settings, refuse)
        steps = {"steps": [asdict(step) for step in choice.steps]}
        if choice.graph is None:
            return _Made(contents, choice.rung, choice.words, steps)
        file = finished(choice, material, params.evaluate.target_precision)
        return _Made(file.contents, choice.rung, choice.words, steps | file.report)


def _independent(params: Params, split: Split) -> Dataset:
    """Return the photos of a split, one per group of near-duplicates, and of val and test none that a base has seen."""
    paths, (_, manifest) = params.paths, read_manifest(params.paths.manifest)
    everything = read_dataset(paths.dataset, paths.raw, elsewhere_of(params))
    part = unseen(with_sample(everything, "test", params.evaluate.max_photos), paths.left_out).of(split)
    return part.with_rows(part.rows[first_of_each(groups_of(part, manifest))].reset_index(drop=True))


def _on_test(params: Params, test: Dataset, threads: Threads) -> dict[str, Any]:
    """Return how accurate both files are on test photos, and the difference with Tango's interval."""
    labels = test.rows.class_index.to_numpy()
    exact, ours = (
        probabilities_of(OnnxClassifier(path), test, threads, stored=None).argmax(axis=1) == labels
        for path in (params.paths.onnx, params.paths.onnx_int8)
    )
    everything = read_dataset(params.paths.dataset, params.paths.raw, elsewhere_of(params)).of("test")
    only_float32, only_int8 = int((exact & ~ours).sum()), int((ours & ~exact).sum())
    return {
        "images": len(test),
        **({"of_images": len(everything)} if len(everything) > params.evaluate.max_photos else {}),
        "accuracy": {"float32": float(exact.mean()), "int8": float(ours.mean())} if len(test) else None,
        "only_float32_right": only_float32,
        "only_int8_right": only_int8,
        "difference": asdict(tango_interval(only_float32, only_int8, len(test))) if len(test) else None,
    }


if __name__ == "__main__":
    quantise.run()
