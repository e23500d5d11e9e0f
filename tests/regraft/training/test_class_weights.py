import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from regraft.training.class_weights import objective_of, prior_of, weights_of

CLASSES = np.array([0] * 6 + [1] * 3 + [2])


def test_balanced_weights_are_those_of_scikit_learn():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=CLASSES)
    assert weights_of("balanced", CLASSES, 3) == pytest.approx(expected)
    assert weights_of("balanced", CLASSES, 3)[CLASSES].mean() == pytest.approx(1)


@pytest.mark.parametrize("class_weight", ["none", "logit_adjustment"])
def test_otherwise_all_classes_weigh_the_same(class_weight):
    assert weights_of(class_weight, CLASSES, 3).tolist() == [1, 1, 1]


def test_the_prior_is_the_share_of_each_class():
    assert prior_of("logit_adjustment", CLASSES, 3) == pytest.approx([0.6, 0.3, 0.1])
    assert prior_of("none", CLASSES, 3) is prior_of("balanced", CLASSES, 3) is None


@pytest.mark.parametrize(
    ("class_weight", "share", "loss"),
    [
        ("none", "accuracy", "log_loss"),
        ("balanced", "macro_recall", "balanced_log_loss"),
        ("logit_adjustment", "macro_recall", "balanced_log_loss"),
    ],
)
def test_who_helps_rare_classes_is_judged_by_means_over_classes(class_weight, share, loss):
    assert (objective_of(class_weight).share, objective_of(class_weight).loss) == (share, loss)
