import warnings

import numpy as np
import pytest
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight

from regraft.training.metrics import (
    Epoch,
    Score,
    class_prior,
    class_weights,
    read_curve,
    score,
    write_curve,
)

CLASSES = np.array([0] * 6 + [1] * 3 + [2])


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    """True classes and probabilities of 200 images in 7 classes, about half of them right."""
    random = np.random.default_rng(0)
    class_indices = random.integers(7, size=200)
    logits = random.normal(size=(200, 7)) + 1.5 * np.eye(7)[class_indices]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return class_indices, probabilities.astype(np.float32)


def test_the_figures_are_those_of_sklearn(answers):
    class_indices, probabilities = answers
    found, predicted = score(*answers), probabilities.argmax(axis=1)
    assert found.accuracy == metrics.accuracy_score(class_indices, predicted)
    assert found.macro_recall == pytest.approx(metrics.balanced_accuracy_score(class_indices, predicted))
    # float32 probabilities add up to 1 only within 1e-7, and sklearn divides by their sum.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = metrics.log_loss(*answers, labels=range(7))
        weights = compute_class_weight("balanced", classes=np.arange(7), y=class_indices)[class_indices]
        balanced = metrics.log_loss(*answers, labels=range(7), sample_weight=weights)
    assert (found.log_loss, found.balanced_log_loss) == pytest.approx((expected, balanced), rel=1e-6)


def test_a_probability_of_zero_for_the_truth_costs_a_finite_amount():
    assert score(np.array([0]), np.array([[0.0, 1.0]], np.float32)).log_loss == pytest.approx(-np.log(1e-7))


def test_a_class_that_no_image_has_does_not_count_in_the_balanced_figures():
    found = score(np.array([0, 0, 3]), np.eye(4)[[0, 1, 3]])
    assert (found.macro_recall, found.accuracy) == pytest.approx((3 / 4, 2 / 3))


def test_balanced_weights_are_those_of_scikit_learn_and_otherwise_all_are_equal():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=CLASSES)
    assert class_weights("balanced", CLASSES, 3) == pytest.approx(expected)
    assert (
        class_weights("none", CLASSES, 3).tolist()
        == class_weights("logit_adjustment", CLASSES, 3).tolist()
        == [1.0] * 3
    )


def test_the_prior_is_the_share_of_each_class():
    assert class_prior("logit_adjustment", CLASSES, 3) == pytest.approx([0.6, 0.3, 0.1])
    assert class_prior("none", CLASSES, 3) is class_prior("balanced", CLASSES, 3) is None


def test_a_curve_has_a_line_per_epoch_and_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "curve.csv"
    write_curve(path, [Epoch(0, None, Score(0.25, 1.5, 0.125, 2.5)), Epoch(1, 1.25, Score(0.75, 0.5, 0.625, 1.5))])
    assert path.read_text() == (
        "epoch,train_loss,val_log_loss,val_accuracy,val_balanced_log_loss,val_macro_recall\n"
        "0,,1.5,0.25,2.5,0.125\n1,1.25,0.5,0.75,1.5,0.625\n"
    )
    assert read_curve(path).train_loss.isna().tolist() == [True, False]
    write_curve(path, [])  # of a phase that was off
    assert read_curve(path).empty
