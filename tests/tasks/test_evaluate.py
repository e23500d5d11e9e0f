import pandas as pd
import pytest

from regraft.files import read_json
from tasks.evaluate import evaluate
from tests.support.small_project import quiet


def test_the_metrics_have_their_keys(project):
    metrics = read_json(project / "reports" / "metrics.json")
    assert list(metrics) == ["test"]
    assert list(metrics["test"]) == ["images", "accuracy", "top5_accuracy", "macro_f1", "log_loss", "ece"]


def test_the_accuracy_is_that_of_the_predictions_file(project):
    predictions = pd.read_csv(project / "reports" / "predictions.csv")
    test = read_json(project / "reports" / "metrics.json")["test"]
    assert test["images"] == len(predictions)
    assert test["accuracy"] == pytest.approx((predictions.actual == predictions.predicted).mean())


def test_the_confusion_matrix_counts_every_test_image(project):
    matrix = pd.read_csv(project / "reports" / "confusion.csv", index_col="actual")
    assert matrix.to_numpy().sum() == read_json(project / "reports" / "metrics.json")["test"]["images"]


def test_the_page_needs_no_network(project, small_params):
    evaluate.function(small_params, quiet)
    page = (project / "reports" / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("data:image/png;base64,") >= 6
