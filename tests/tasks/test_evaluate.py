import pandas as pd
import pytest

from regraft.files import read_json, write_json
from tasks.evaluate import evaluate
from tests.support.small_project import quiet


def test_the_metrics_are_those_of_the_shipped_file_and_of_both_trainings(project):
    metrics = read_json(project / "reports" / "metrics.json")
    assert list(metrics) == ["test", "head", "fine_tune"]
    # With three classes the right one is always among five.
    interval = ["accuracy", "accuracy_low", "accuracy_high"]
    assert list(metrics["test"]) == ["images", *interval, "macro_f1", "log_loss", "ece"]
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
    assert list(read_json(project / "reports" / "metrics.json")) == ["test", "head"]


def test_the_accuracy_is_that_of_the_predictions_file(project):
    predictions = pd.read_csv(project / "reports" / "predictions.csv")
    test = read_json(project / "reports" / "metrics.json")["test"]
    assert test["images"] == len(predictions)
    assert test["accuracy"] == pytest.approx((predictions.actual == predictions.predicted).mean())


def test_the_confusion_matrix_counts_every_test_image(project):
    matrix = pd.read_csv(project / "reports" / "confusion.csv", index_col="actual")
    assert matrix.to_numpy().sum() == read_json(project / "reports" / "metrics.json")["test"]["images"]
