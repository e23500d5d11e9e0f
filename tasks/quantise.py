"""Stage 10 of 11: the same file in int8, if that is shown to cost next to nothing of the accuracy, else as it is.

Reads models/model.onnx, build/dataset.parquet, build/left_out.parquet, build/manifest.parquet and data/raw; writes
models/model.int8.onnx and reports/int8.json. The file is always there: where int8 is off or not good enough, it is
models/model.onnx byte for byte, and the report says why.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from regraft.core.config import Params
from regraft.core.errors import InvalidModel
from regraft.core.files import readable_bytes, replacing, sha256_of, write_json
from regraft.core.processor import this_processor
from regraft.core.statistics import tango_interval
from regraft.export.classifier import OnnxClassifier
from regraft.export.compose import write_graph
from regraft.export.int8 import (
    DEFECTS,
    FLOAT32,
    INT8,
    agreement_of,
    decided_anew,
    fewest_photos,
    in_int8,
    unsound,
    verdict_of,
)
from regraft.export.scoring import answers_of, probabilities_of
from regraft.photos.dataset import Dataset, Split, read_dataset
from regraft.photos.elsewhere import elsewhere_of
from regraft.photos.groups import first_of_each, groups_of
from regraft.photos.images import Threads
from regraft.photos.left_out import unseen
from regraft.photos.manifest import read_manifest
from regraft.photos.sample import with_sample
from tasks.progress import Progress
from tasks.stage import stage

IMAGES = 4000  # val photos that it is judged on, at most; quantise.budget 0.005 takes 765
CALIBRATION_IMAGES = 128  # training photos that the ranges of activations are measured on


@stage
def quantise(params: Params, progress: Progress) -> None:
    """Write the int8 file; test photos decide nothing, and are only reported."""
    paths, threads = params.paths, Threads(params.machine.workers, progress("photos"))
    with replacing(paths.onnx_int8) as draft:
        if params.quantise.mode == "off":
            passed, words, more = False, "quantise.mode is off", {}
        else:
            passed, words, more = _write_int8(draft, params, threads)
        if not passed:
            draft.write_bytes(paths.onnx.read_bytes())
    size, before = paths.onnx_int8.stat().st_size, paths.onnx.stat().st_size
    report = {
        "sha256": sha256_of(paths.onnx_int8),
        "bytes": size,
        "precision": INT8 if passed else FLOAT32,
        "words": f"{words}; {readable_bytes(size)} instead of {readable_bytes(before)}" if passed else words,
        "processor": str(this_processor()),  # int8 is right on all, and much faster on those that multiply bytes
    }
    if passed:
        report["test"] = _on_test(params, _independent(params, "test"), threads)
    write_json(paths.reports / "int8.json", report | more)


def _write_int8(draft: Path, params: Params, threads: Threads) -> tuple[bool, str, dict[str, Any]]:
    """Write the file in int8, and return whether it may ship, why, and what to report of it."""
    budget, source = params.quantise.budget, OnnxClassifier(params.paths.onnx)
    judged = _independent(params, "val").head(IMAGES)
    if len(judged) < fewest_photos(budget):
        words = (
            f"{len(judged)} val photos cannot show that int8 costs at most {budget:.2%} of accuracy (quantise.budget): "
            f"that takes {fewest_photos(budget)} that training has not seen, one per group of near-duplicates"
        )
        return False, words, {}
    try:
        graph = in_int8(source, _independent(params, "train").head(CALIBRATION_IMAGES))
        write_graph(draft, graph)
        file = OnnxClassifier(draft)
        exact, ours = (answers_of(each, judged, threads, stored=None) for each in (source, file))
        agreement = agreement_of(exact.probabilities, ours.probabilities)
        passed, words = verdict_of(agreement, budget)
        if passed and (wrong := unsound(file, judged)):
            passed, words = False, wrong
    except (InvalidModel, *DEFECTS) as error:
        return False, " ".join(str(error).split())[:200] or type(error).__name__, {}
    labels = judged.rows.class_index.to_numpy()
    facts, report = decided_anew(source, exact, ours, labels, params.evaluate.target_precision)
    write_graph(draft, graph, facts)
    return passed, words, {"agreement": asdict(agreement)} | (report if passed else {})


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
