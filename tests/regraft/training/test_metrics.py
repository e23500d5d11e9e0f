import warnings

import numpy as np
import pytest
from sklearn import metrics

from regraft.training.metrics import Objective, Score, classification_report, expected_calibration_error, score


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    """True classes and probabilities of 200 images in 7 classes, about half of them right."""
    random = np.random.default_rng(0)
    class_indices = random.integers(7, size=200)
    logits = random.normal(size=(200, 7)) + 1.5 * np.eye(7)[class_indices]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return class_indices, probabilities.astype(np.float32)


def report_of(class_indices: np.ndarray, probabilities: np.ndarray, *, bins: int) -> dict[str, float | int]:
    """The report of images of which no two are alike."""
    return classification_report(class_indices, probabilities, np.arange(len(class_indices)), bins=bins)


def test_accuracy_is_that_of_sklearn(answers):
    class_indices, probabilities = answers
    assert score(*answers).accuracy == metrics.accuracy_score(class_indices, probabilities.argmax(axis=1))


def test_log_loss_is_that_of_sklearn(answers):
    # float32 probabilities add up to 1 only within 1e-7, and sklearn divides by their sum.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = metrics.log_loss(*answers, labels=range(7))
    assert score(*answers).log_loss == pytest.approx(expected, rel=1e-6)


def test_a_probability_of_zero_for_the_truth_costs_a_finite_amount():
    assert score(np.array([0]), np.array([[0.0, 1.0]], np.float32)).log_loss == pytest.approx(-np.log(1e-7))


def test_macro_recall_is_that_of_sklearn(answers):
    class_indices, probabilities = answers
    expected = metrics.balanced_accuracy_score(class_indices, probabilities.argmax(axis=1))
    assert score(*answers).macro_recall == pytest.approx(expected)


def test_the_balanced_log_loss_is_the_mean_of_those_of_the_classes(answers):
    class_indices, probabilities = answers
    of_classes = [
        score(class_indices[class_indices == index], probabilities[class_indices == index]).log_loss
        for index in range(7)
    ]
    assert score(*answers).balanced_log_loss == pytest.approx(np.mean(of_classes))


def test_with_as_many_images_of_each_class_the_balanced_figures_are_the_plain_ones(answers):
    chosen = np.concatenate([np.flatnonzero(answers[0] == index)[:10] for index in range(7)])
    found = score(*(part[chosen] for part in answers))
    assert (found.macro_recall, found.balanced_log_loss) == pytest.approx((found.accuracy, found.log_loss))


def test_a_class_that_no_image_has_does_not_count_in_the_balanced_figures():
    found = score(np.array([0, 0, 3]), np.eye(4)[[0, 1, 3]])
    assert (found.macro_recall, found.accuracy) == pytest.approx((3 / 4, 2 / 3))


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (Objective("accuracy", "log_loss"), "accuracy 0.900 (log loss 0.250)"),
        (Objective("macro_recall", "balanced_log_loss"), "macro recall 0.800 (balanced log loss 0.500)"),
    ],
)
def test_figures_are_said_with_their_names(objective, words):
    assert objective.words(Score(0.9, 0.25, 0.8, 0.5)) == words


def test_the_calibration_error_is_that_of_a_hand_computed_example():
    # Two bins. Up to 0.5: nothing. Above: confidences 0.6, 0.8, 0.9 and 0.7 (mean 0.75), of which two are right (0.5).
    probabilities = np.array([[0.6, 0.4], [0.2, 0.8], [0.1, 0.9], [0.7, 0.3]])
    assert expected_calibration_error(np.array([0, 1, 0, 1]), probabilities, bins=2) == pytest.approx(0.25)


def test_the_calibration_error_weights_bins_by_their_images():
    # Three images at 0.9, all right: a gap of 0.1. One at 0.6, wrong: a gap of 0.6. (3 * 0.1 + 0.6) / 4.
    probabilities = np.array([[0.9, 0.1]] * 3 + [[0.6, 0.4]])
    assert expected_calibration_error(np.array([0, 0, 0, 1]), probabilities, bins=5) == pytest.approx(0.225)


@pytest.mark.parametrize(("truth", "expected"), [(0, 0.0), (1, 1.0)])
def test_a_calibration_error_is_0_at_best_and_1_at_worst(truth, expected):
    assert expected_calibration_error(np.array([truth] * 5), np.array([[1.0, 0.0]] * 5), bins=10) == expected


def test_gaps_in_different_bins_do_not_cancel():
    # Too sure in one bin and not sure enough in the other, by the same amount.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert expected_calibration_error(np.array([0, 1, 0, 0]), probabilities, bins=5) == pytest.approx(0.4)


def test_macro_f1_is_that_of_sklearn(answers):
    class_indices, probabilities = answers
    expected = metrics.f1_score(class_indices, probabilities.argmax(axis=1), average="macro")
    assert report_of(*answers, bins=15)["macro_f1"] == pytest.approx(expected)


def test_a_class_that_no_image_has_cannot_be_measured_and_does_not_count_in_macro_f1():
    probabilities = np.eye(3)[[0, 0, 1, 1]]
    assert report_of(np.array([0, 0, 1, 1]), probabilities, bins=2)["macro_f1"] == 1.0


def test_top5_accuracy_is_that_of_sklearn(answers):
    expected = metrics.top_k_accuracy_score(*answers, k=5, labels=range(7))
    assert report_of(*answers, bins=15)["top5_accuracy"] == pytest.approx(expected)


def test_of_five_classes_the_right_one_is_always_among_five():
    report = report_of(np.array([0, 1]), np.eye(5)[[1, 0]], bins=2)
    assert (report["accuracy"], "top5_accuracy" in report) == (0.0, False)


def test_the_report_holds_plain_numbers_that_json_can_write(answers):
    assert {type(value) for value in report_of(*answers, bins=15).values()} == {int, float}


def test_near_duplicates_change_the_interval_and_no_other_figure(answers):
    alone = report_of(*answers, bins=15)
    pairs = classification_report(answers[0], answers[1], np.arange(200) // 2, bins=15)
    changed = {name for name in alone if alone[name] != pairs[name]}
    assert changed == {"independent_images", "accuracy_low", "accuracy_high"}
    assert (pairs["images"], pairs["independent_images"]) == (200, 100)
    assert pairs["accuracy_high"] - pairs["accuracy_low"] > 1.3 * (alone["accuracy_high"] - alone["accuracy_low"])
