import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from regraft.photos.dataset import Dataset
from regraft.training.keras_models import Epoch
from regraft.training.metrics import Score
from regraft.training.tables import (
    read_confusion,
    read_curve,
    read_predictions,
    write_confusion,
    write_curve,
    write_predictions,
)

CURVE = [
    Epoch(0, None, Score(0.25, 1.5, 0.125, 2.5)),
    Epoch(1, 1.25, Score(0.75, 0.5, 0.625, 1.5)),
    Epoch(2, 0.75, Score(0.5, 0.625, 0.375, 1.625)),
]
ODD_NAMES = ["007", "NA", "a, b", "true", "", "actual"]


def predictions(names: list[str]) -> tuple[Dataset, np.ndarray]:
    """Two test images of each class; the model takes every second for the next class."""
    rows = pd.DataFrame({"class_name": np.repeat(names, 2), "class_index": np.repeat(np.arange(len(names)), 2)})
    said = (rows.class_index + np.arange(len(rows)) % 2) % len(names)
    rows["path"] = [f"{number}.png" for number in range(len(rows))]
    return Dataset(rows, names, Path()), np.eye(len(names))[said]


def test_a_curve_has_a_line_per_epoch(tmp_path):
    write_curve(tmp_path / "curve.csv", CURVE)
    assert (tmp_path / "curve.csv").read_text() == (
        "epoch,train_loss,val_log_loss,val_accuracy,val_balanced_log_loss,val_macro_recall\n"
        "0,,1.5,0.25,2.5,0.125\n1,1.25,0.5,0.75,1.5,0.625\n2,0.75,0.625,0.5,1.625,0.375\n"
    )


def test_a_curve_is_read_as_it_was_written(tmp_path):
    write_curve(tmp_path / "curve.csv", CURVE)
    curve = read_curve(tmp_path / "curve.csv")
    assert curve.train_loss.isna().tolist() == [True, False, False]
    assert curve.val_accuracy.tolist() == [0.25, 0.75, 0.5]


def test_the_curve_of_a_phase_that_was_off_is_empty(tmp_path):
    write_curve(tmp_path / "curve.csv", [])
    assert read_curve(tmp_path / "curve.csv").empty


def test_the_confusion_matrix_is_that_of_sklearn(tmp_path):
    test, probabilities = predictions(["a", "b", "c"])
    write_confusion(tmp_path / "confusion.csv", test, probabilities)
    table = pd.read_csv(tmp_path / "confusion.csv", index_col="actual")
    assert np.array_equal(table, confusion_matrix(test.rows.class_index, probabilities.argmax(axis=1)))


def test_a_class_without_test_images_has_its_row_and_column(tmp_path):
    test, probabilities = predictions(["a", "b"])
    wider = np.pad(probabilities, ((0, 0), (0, 1)))
    write_confusion(tmp_path / "confusion.csv", replace(test, class_names=["a", "b", "never seen"]), wider)
    table = pd.read_csv(tmp_path / "confusion.csv", index_col="actual")
    assert (table.shape, table.loc["never seen"].sum()) == ((3, 3), 0)


def test_class_names_are_read_as_they_were_written(tmp_path):
    test, probabilities = predictions(ODD_NAMES)
    write_confusion(tmp_path / "confusion.csv", test, probabilities)
    write_predictions(tmp_path / "predictions.csv", test, probabilities)
    assert read_confusion(tmp_path / "confusion.csv").index.tolist() == ODD_NAMES
    actual = read_predictions(tmp_path / "predictions.csv").actual
    assert sorted(actual.tolist()) == sorted(test.rows.class_name)


def test_predictions_are_written_with_names_as_they_are_and_line_ends_as_numbers(tmp_path):
    names = ['a, "b"', "c|d\ne"]
    rows = pd.DataFrame({"path": ["z, 1.png", "a\n2.png"], "class_name": names, "class_index": [0, 1]})
    write_predictions(
        tmp_path / "predictions.csv", Dataset(rows, names, tmp_path), np.array([[0.25, 0.75], [0.125, 0.875]])
    )
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["path", "actual", "predicted", "confidence"],
            ["a\\x0a2.png", r"c|d\x0ae", r"c|d\x0ae", "0.875"],
            ["z, 1.png", names[0], r"c|d\x0ae", "0.75"],
        ]
