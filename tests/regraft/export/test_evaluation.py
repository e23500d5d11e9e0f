import csv

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from regraft.core.statistics import wilson
from regraft.export.evaluation import (
    BETTER,
    FEW,
    WORSE,
    class_table,
    classification_report,
    expected_calibration_error,
    read_classes,
    read_slices,
    share_right,
    slice_table,
    write_parts,
    write_predictions,
)
from regraft.photos.dataset import Dataset
from tests.regraft.training.test_metrics import answers

__all__ = ["answers"]  # the fixture
ODD_NAMES = ["007", "NA", "a, b", "true", "", "actual"]


def alone(count: int) -> np.ndarray:
    """Groups of one photo each."""
    return np.arange(count).astype(str)


def report_of(class_indices: np.ndarray, probabilities: np.ndarray, *, bins: int) -> dict[str, float | int]:
    return classification_report(class_indices, probabilities, alone(len(class_indices)), bins=bins)


@pytest.mark.parametrize(
    ("truth", "probabilities", "bins", "expected"),
    [
        # Above 0.5: confidences 0.6, 0.8, 0.9 and 0.7 (mean 0.75), of which two are right (0.5).
        ([0, 1, 0, 1], [[0.6, 0.4], [0.2, 0.8], [0.1, 0.9], [0.7, 0.3]], 2, 0.25),
        # Three images at 0.9, all right: a gap of 0.1. One at 0.6, wrong: a gap of 0.6. (3 * 0.1 + 0.6) / 4.
        ([0, 0, 0, 1], [[0.9, 0.1]] * 3 + [[0.6, 0.4]], 5, 0.225),
        # Too sure in one bin and not sure enough in the other, by the same amount.
        ([0, 1, 0, 0], [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]], 5, 0.4),
        ([1] * 5, [[1.0, 0.0]] * 5, 10, 1.0),
    ],
)
def test_the_calibration_error_is_that_of_a_hand_computed_example(truth, probabilities, bins, expected):
    assert expected_calibration_error(np.array(truth), np.array(probabilities), bins=bins) == pytest.approx(expected)


def test_the_report_has_the_figures_of_sklearn_as_plain_numbers(answers):
    class_indices, probabilities = answers
    report = report_of(*answers, bins=15)
    f1 = metrics.f1_score(class_indices, probabilities.argmax(axis=1), average="macro")
    top5 = metrics.top_k_accuracy_score(*answers, k=5, labels=range(7))
    assert (report["macro_f1"], report["top5_accuracy"]) == pytest.approx((f1, top5))
    assert {type(value) for value in report.values()} == {int, float}


def test_classes_without_images_do_not_count_and_of_five_the_right_one_is_always_among_five():
    report = report_of(np.array([0, 0, 1, 1]), np.eye(3)[[0, 0, 1, 1]], bins=2)
    assert (report["macro_f1"], "top5_accuracy" in report) == (1.0, False)


def test_near_duplicates_change_the_interval_and_no_other_figure(answers):
    one_each = report_of(*answers, bins=15)
    pairs = classification_report(answers[0], answers[1], np.arange(200) // 2, bins=15)
    changed = {name for name in one_each if one_each[name] != pairs[name]}
    assert changed == {"independent_images", "accuracy_low", "accuracy_high"}
    assert (pairs["images"], pairs["independent_images"]) == (200, 100)


def test_a_share_has_wilsons_interval_of_as_many_photos_as_are_independent():
    right = np.arange(100) < 90
    assert share_right(right, alone(100)) == wilson(90, 100)
    assert share_right(np.zeros(0, bool), alone(0)).high == 1
    pairs = share_right(right, (np.arange(100) // 2).astype(str))
    assert (pairs.value, pairs.low, pairs.high) == (0.9, wilson(45, 50).low, wilson(45, 50).high)


def test_a_class_with_few_photos_is_not_the_worst_by_chance():
    classes = np.repeat([0, 1, 2], [50, 2, 50])
    right = np.concatenate([np.arange(50) < 48, [False, False], np.arange(50) < 20])
    table = class_table(["good", "few", "bad", "none"], classes, right, alone(102)).set_index("class_name")
    assert list(table.index) == ["bad", "few", "good", "none"]
    assert table.recall[:3].tolist() == [0.4, 0.0, 0.96]
    assert (table.note == FEW).tolist() == [False, True, False, True]
    assert (table.images["none"], np.isnan(table.recall["none"])) == (0, True)


@pytest.mark.parametrize(("accuracy", "note"), [(0.6, WORSE), (1.0, BETTER), (0.9, "")])
def test_a_slice_is_marked_where_it_differs_from_the_rest_by_more_than_chance(accuracy, note):
    slices = pd.DataFrame({"light": ["night"] * 100 + ["day"] * 300})
    right = np.concatenate([np.arange(100) < 100 * accuracy, np.arange(300) < 265])
    table = slice_table(slices, right, alone(400)).set_index("value")
    assert table.note["night"] == note
    assert (table.images["night"], table.accuracy["night"]) == (100, accuracy)


def test_photos_of_one_group_are_one_piece_of_evidence():
    slices = pd.DataFrame({"light": ["night"] * 40 + ["day"] * 100})
    right = np.concatenate([np.zeros(40, bool), np.ones(100, bool)])
    groups = np.concatenate([np.zeros(40, int), np.arange(1, 101)]).astype(str)
    assert slice_table(slices, right, alone(140)).note.tolist() == [WORSE, BETTER]
    assert slice_table(slices, right, groups).set_index("value").note["night"] == FEW


def test_tables_of_parts_are_read_as_they_were_written(tmp_path):
    slices = pd.DataFrame({"=camera": ["007", "NA", None, "<b>"]})  # without a value it is a part of its own
    table = slice_table(slices, np.array([True, False, True, True]), alone(4))
    write_parts(tmp_path / "slices.csv", table)
    assert sorted(read_slices(tmp_path / "slices.csv").value) == sorted(table.value) == ["", "007", "<b>", "NA"]
    write_parts(tmp_path / "none.csv", slice_table(pd.DataFrame(index=range(4)), np.ones(4, bool), alone(4)))
    assert read_slices(tmp_path / "none.csv").empty
    classes = class_table(["NA", "x"], np.zeros(4, int), np.ones(4, bool), alone(4))
    write_parts(tmp_path / "classes.csv", classes)
    assert read_classes(tmp_path / "classes.csv").class_name.tolist() == ["NA", "x"]


def test_predictions_are_written_by_path_and_line_ends_as_numbers(tmp_path):
    names = ['a, "b"', "c|d\ne"]
    rows = pd.DataFrame({"path": ["z, 1.png", "a\n2.png"], "class_name": names, "class_index": [0, 1]})
    write_predictions(tmp_path / "p.csv", Dataset(rows, names, tmp_path), np.array([[0.25, 0.75], [0.125, 0.875]]))
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["path", "actual", "predicted", "confidence"],
            ["a\\x0a2.png", r"c|d\x0ae", r"c|d\x0ae", "0.875"],
            ["z, 1.png", names[0], r"c|d\x0ae", "0.75"],
        ]
