"""Stage 11 of 11: run the shipped file over the untouched test photos, and write the figures of the run.

Reads models/model.onnx, build/dataset.parquet, build/left_out.parquet, build/manifest.parquet, data/raw,
reports/head.json and reports/fine_tune.json; writes reports/metrics.json, which holds numbers only, the prediction for
each photo (predictions.csv, confusion.csv), figures of parts of the test split (classes.csv, slices.csv), of
calibration (calibration.json, reliability.csv) and of selective classification (abstention.json, risk_coverage.csv).

As a command it also writes reports/report.html, a view of the results (`tasks.report`).
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from regraft.core.config import Params
from regraft.core.csv_files import write_csv
from regraft.core.files import read_json, write_json
from regraft.export.calibration import shares_of, weights_for_use
from regraft.export.classifier import Answers, OnnxClassifier, answers_of, open_said
from regraft.export.evaluation import (
    Novel,
    Outcome,
    calibration_report,
    class_table,
    classification_report,
    outcome_of,
    reliability,
    risk_coverage,
    slice_table,
    write_confusion,
    write_parts,
    write_predictions,
)
from regraft.photos.dataset import read_dataset
from regraft.photos.elsewhere import elsewhere_of
from regraft.photos.groups import groups_of, slices_of_images
from regraft.photos.images import Threads
from regraft.photos.left_out import unseen
from regraft.photos.manifest import read_manifest
from regraft.photos.sample import JUDGED, sample_of
from regraft.serving.thresholds import Promise
from regraft.store.leases import store_in_use
from tasks.progress import Progress
from tasks.report import write_report
from tasks.stage import stage

_BINS = 15  # of the expected calibration error


@stage
def evaluate(params: Params, progress: Progress) -> None:
    """Write the figures of the model that ships, and its prediction for every test photo."""
    paths, machine = params.paths, params.machine
    classifier = OnnxClassifier(paths.onnx)
    everything = read_dataset(paths.dataset, paths.raw, elsewhere_of(params)).of("test")
    test = unseen(sample_of(everything, JUDGED), paths.left_out)
    with store_in_use(paths.store, machine.shared_store):
        stored = open_said(paths.store, classifier, shared=machine.shared_store)
        threads = Threads(machine.workers, progress("photos"))
        said = answers_of(classifier, test, threads, stored=stored)
    probabilities = said.probabilities
    _, manifest = read_manifest(paths.manifest)
    class_indices, groups = test.rows.class_index.to_numpy(), groups_of(test, manifest)
    right, largest = probabilities.argmax(axis=1) == class_indices, probabilities.max(axis=1)
    weights = weights_for_use(class_indices, classifier.class_names, shares_of(classifier.metadata))
    answers = outcome_of(classifier.promise, right, largest, groups, weights)
    metrics = {
        "test": classification_report(class_indices, probabilities, groups, bins=_BINS, weights=weights),
        "answered": _answered(classifier.promise, answers),
        "head": _on_val(read_json(paths.reports / "head.json")),
        "fine_tune": _on_val(read_json(paths.reports / "fine_tune.json")),
    }
    if len(everything) > JUDGED:
        metrics["test"]["of_images"] = len(everything)
    write_json(paths.reports / "metrics.json", {phase: figures for phase, figures in metrics.items() if figures})
    write_predictions(paths.reports / "predictions.csv", test, probabilities)
    write_confusion(paths.reports / "confusion.csv", test, probabilities)
    write_parts(paths.reports / "classes.csv", class_table(test.class_names, class_indices, right, groups))
    write_parts(paths.reports / "slices.csv", slice_table(slices_of_images(test, manifest), right, groups))
    _write_calibration(params, classifier, class_indices, said, weights)
    write_json(paths.reports / "abstention.json", asdict(answers))
    write_csv(paths.reports / "risk_coverage.csv", risk_coverage(right, largest, weights))


def _write_calibration(
    params: Params,
    classifier: OnnxClassifier,
    class_indices: np.ndarray,
    said: Answers,
    weights: np.ndarray | None,
) -> None:
    """Write the effect of the temperature, and how often a photo of a known class is called novel."""
    facts = classifier.metadata
    report = calibration_report(class_indices, said.probabilities, facts, bins=_BINS, weights=weights)
    if said.novelty is not None and classifier.novel_above is not None:
        report["novel"] = asdict(Novel.of(said.novelty, classifier.novel_above, classifier.novel_share))
    write_json(params.paths.reports / "calibration.json", report)
    table = reliability(class_indices, said.probabilities, facts, bins=_BINS, weights=weights)
    write_csv(params.paths.reports / "reliability.csv", table)


def _answered(promise: Promise | None, answers: Outcome) -> dict[str, float | int]:
    """Return the figures of a file that may be unsure; none of one that answers every photo."""
    if promise is None:
        return {}
    figures = {"abstain_below": promise.abstain_below, "coverage": answers.coverage.value}
    return figures | ({"precision": answers.precision.value} if answers.precision else {})


def _on_val(report: dict[str, Any]) -> dict[str, float | int]:
    """Return the figures that a training is judged by; none of one that was off."""
    if "val" not in report:
        return {}
    val, objective = report["val"], report["objective"]
    figures = {f"val_{name}": val[name] for name in (objective["share"], objective["loss"])}
    return figures | {name: report[name] for name in ("best_epoch",) if name in report}  # fine-tuning chooses none


if __name__ == "__main__":
    evaluate.run()
    write_report()
