import onnx
import pandas as pd
import pytest

from regraft.core.files import read_json, write_json
from regraft.export.compose import write_graph
from regraft.export.evaluation import read_classes, read_slices
from regraft.photos.manifest import read_manifest, write_manifest
from regraft.serving.thresholds import Promise
from tasks.evaluate import evaluate
from tests.support.small_project import quiet


def test_the_metrics_are_those_of_the_shipped_file_and_of_both_trainings(project):
    metrics = read_json(project / "reports" / "metrics.json")
    assert list(metrics) == ["test", "answered", "head", "fine_tune"]
    # With three classes the right one is always among five.
    interval, calibration = ["accuracy", "accuracy_low", "accuracy_high"], ["brier", "ece", "ece_by_chance"]
    assert list(metrics["test"]) == ["images", "independent_images", *interval, "macro_f1", "log_loss", *calibration]
    for phase in ("head", "fine_tune"):
        report = read_json(project / "reports" / f"{phase}.json")
        assert metrics[phase] == {
            "val_accuracy": report["val"]["accuracy"],
            "val_log_loss": report["val"]["log_loss"],
            **({"best_epoch": report["best_epoch"]} if phase == "head" else {}),
        }


def test_the_metrics_are_numbers_only(project):
    metrics = read_json(project / "reports" / "metrics.json")
    assert {type(figure) for phase in metrics.values() for figure in phase.values()} == {int, float}


def test_fine_tuning_that_was_off_has_no_metrics(project, small_params):
    write_json(project / "reports" / "fine_tune.json", {"reason": "Fine-tuning is off.", "is_used": False})
    evaluate.function(small_params, quiet)
    assert list(read_json(project / "reports" / "metrics.json")) == ["test", "answered", "head"]


def test_the_accuracy_is_that_of_the_predictions_file(project):
    predictions = pd.read_csv(project / "reports" / "predictions.csv")
    test = read_json(project / "reports" / "metrics.json")["test"]
    assert test["images"] == len(predictions)
    assert test["accuracy"] == pytest.approx((predictions.actual == predictions.predicted).mean())


def test_the_confusion_matrix_counts_every_test_image(project):
    matrix = pd.read_csv(project / "reports" / "confusion.csv", index_col="actual")
    assert matrix.to_numpy().sum() == read_json(project / "reports" / "metrics.json")["test"]["images"]


def test_a_file_that_may_be_unsure_is_judged_by_what_it_answers(project, small_params):
    path = project / "models" / "model.onnx"
    predictions = pd.read_csv(project / "reports" / "predictions.csv")
    middle = float(predictions.confidence.sort_values().iloc[8:10].mean())  # they are rounded
    write_graph(path, onnx.load(path), Promise(middle, 0.9, 0.95).as_metadata())
    evaluate.function(small_params, quiet)
    answered = predictions[predictions.confidence >= middle]
    report = read_json(project / "reports" / "abstention.json")
    assert (report["answered"], report["images"]) == (len(answered), len(predictions))
    assert report["precision"]["value"] == pytest.approx((answered.actual == answered.predicted).mean())
    assert read_json(project / "reports" / "metrics.json")["answered"] == {
        "abstain_below": middle,
        "coverage": report["coverage"]["value"],
        "precision": report["precision"]["value"],
    }


def test_every_class_has_its_recall_and_a_folder_without_labels_csv_has_no_slices(project):
    classes = read_classes(project / "reports" / "classes.csv")
    predictions = pd.read_csv(project / "reports" / "predictions.csv")
    right = (predictions.actual == predictions.predicted).groupby(predictions.actual).mean()
    assert dict(zip(classes.class_name, classes.recall, strict=True)) == pytest.approx(right.to_dict(), abs=1e-4)
    assert (classes.low <= classes.recall).all()
    assert read_slices(project / "reports" / "slices.csv").empty


def test_slices_of_the_manifest_are_measured(project, small_params):
    layout, manifest = read_manifest(project / "build" / "manifest.parquet")
    manifest["slice.parity"] = [str(number % 2) for number in range(len(manifest))]
    write_manifest(project / "build" / "manifest.parquet", layout, manifest)
    evaluate.function(small_params, quiet)
    slices = read_slices(project / "reports" / "slices.csv")
    assert sorted(slices.value) == ["0", "1"]
    assert slices.images.sum() == read_json(project / "reports" / "metrics.json")["test"]["images"]


def test_of_a_large_test_split_a_sample_is_judged_and_the_metrics_say_of_how_many(project, small_params, monkeypatch):
    monkeypatch.setattr("tasks.evaluate.JUDGED", 9)
    before = pd.read_csv(project / "reports" / "predictions.csv").set_index("path")
    evaluate.function(small_params, quiet)
    test = read_json(project / "reports" / "metrics.json")["test"]
    assert (test["images"], test["of_images"]) == (9, len(before))
    sample = pd.read_csv(project / "reports" / "predictions.csv").set_index("path")
    pd.testing.assert_frame_equal(sample, before.loc[sample.index])
    assert sample.actual.value_counts().tolist() == [3, 3, 3]
