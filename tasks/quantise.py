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
from regraft.export.abstention import choose_threshold
from regraft.export.calibration import rows_for_use, shares_of
from regraft.export.classifier import OnnxClassifier, answers_of
from regraft.export.compose import write_graph
from regraft.export.int8 import (
    DEFECTS,
    FLOAT32,
    INT8,
    agreement_of,
    facts_of_int8,
    fewest_photos,
    in_int8,
    verdict_of,
)
from regraft.photos.dataset import Dataset, Split
from regraft.photos.groups import first_of_each, groups_of
from regraft.photos.left_out import unseen
from regraft.photos.manifest import read_manifest
from regraft.photos.sample import JUDGED, with_sample
from tasks.progress import Progress
from tasks.stage import stage
from tasks.stage_inputs import StageInputs

IMAGES = 4000  # val photos that it is judged on, at most; quantise.budget 0.005 takes 765
CALIBRATION_IMAGES = 128  # training photos that the ranges of activations are measured on


@stage
def quantise(params: Params, progress: Progress) -> None:
    """Write the int8 file; test photos decide nothing, and are only reported."""
    paths, inputs = params.paths, StageInputs(params, progress)
    with replacing(paths.onnx_int8) as draft:
        if params.quantise.mode == "off":
            passed, words, more = False, "quantise.mode is off", {}
        else:
            passed, words, more = _write_int8(draft, params, inputs)
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
        report["test"] = _on_test(params, inputs)
    write_json(paths.reports / "int8.json", report | more)


def _write_int8(draft: Path, params: Params, inputs: StageInputs) -> tuple[bool, str, dict[str, Any]]:
    """Write the file in int8, and return whether it may ship, why, and what to report of it."""
    budget, source = params.quantise.budget, OnnxClassifier(params.paths.onnx)
    judged = _independent(params, inputs, "val").head(IMAGES)
    if len(judged) < fewest_photos(budget):
        words = (
            f"{len(judged)} val photos cannot show that int8 costs at most {budget:.2%} of accuracy (quantise.budget): "
            f"that takes {fewest_photos(budget)} that training has not seen, one per group of near-duplicates"
        )
        return False, words, {}
    try:
        graph = in_int8(source, _independent(params, inputs, "train").head(CALIBRATION_IMAGES))
        write_graph(draft, graph)
        exact, ours = (
            answers_of(each, judged, inputs.threads, stored=None) for each in (source, OnnxClassifier(draft))
        )
    except (InvalidModel, *DEFECTS) as error:
        return False, " ".join(str(error).split())[:200] or type(error).__name__, {}
    agreement = agreement_of(exact.probabilities, ours.probabilities)
    passed, words = verdict_of(agreement, budget)
    labels = judged.rows.class_index.to_numpy()
    in_use = rows_for_use(labels, source.class_names, shares_of(source.metadata))
    right, largest = ours.probabilities.argmax(axis=1) == labels, ours.probabilities.max(axis=1, initial=0)
    choice = choose_threshold(right, largest, params.evaluate.target_precision, in_use)
    write_graph(draft, graph, facts_of_int8(ours, labels, choice))
    return passed, words, {"agreement": asdict(agreement)} | ({"abstention": choice.words} if passed else {})


def _independent(params: Params, inputs: StageInputs, split: Split) -> Dataset:
    """Return the photos of a split, one per group of near-duplicates, and of val and test none that a base has seen."""
    everything = with_sample(inputs.dataset, "test", JUDGED)
    part = unseen(everything, params.paths.left_out).of(split)
    groups = groups_of(part, read_manifest(params.paths.manifest)[1])
    return part.with_rows(part.rows[first_of_each(groups)].reset_index(drop=True))


def _on_test(params: Params, inputs: StageInputs) -> dict[str, Any]:
    """Return how accurate both files are on test photos, and the difference with Tango's interval."""
    test, of_images = _independent(params, inputs, "test"), len(inputs.dataset.of("test"))
    labels = test.rows.class_index.to_numpy()
    exact, ours = (
        answers_of(OnnxClassifier(path), test, inputs.threads, stored=None).probabilities.argmax(axis=1) == labels
        for path in (params.paths.onnx, params.paths.onnx_int8)
    )
    only_float32, only_int8 = int((exact & ~ours).sum()), int((ours & ~exact).sum())
    return {
        "images": len(test),
        **({"of_images": of_images} if of_images > JUDGED else {}),
        "accuracy": {"float32": float(exact.mean()), "int8": float(ours.mean())} if len(test) else None,
        "only_float32_right": only_float32,
        "only_int8_right": only_int8,
        "difference": asdict(tango_interval(only_float32, only_int8, len(test))) if len(test) else None,
    }


if __name__ == "__main__":
    quantise.run()
