"""Other shares of classes in use: what is undone for a comparison, and what a promise is about."""

import json

import numpy as np
import pytest

from regraft.export.abstention import choose_threshold_in_use, find_promise
from regraft.export.calibration import SHARES, SHIFT, as_learnt, rows_for_use, shares_of, weights_for_use
from regraft.export.reliability import outcome_of, risk_coverage
from regraft.photos.groups import independent_images
from regraft.training.evaluation import classification_report

NAMES = ["common", "rare"]
EVEN = {"common": 1.0, "rare": 1.0}


def test_without_its_shift_a_file_says_what_it_said_without_the_setting():
    learnt = np.random.default_rng(0).dirichlet([1, 1, 1], 50).astype(np.float32)
    shift = np.array([0.0, 3.0, -2.0])
    in_use = learnt * np.exp(shift)
    in_use = (in_use / in_use.sum(axis=1, keepdims=True)).astype(np.float32)
    assert as_learnt(in_use, {SHIFT: json.dumps(shift.tolist())}) == pytest.approx(learnt, abs=1e-5)
    assert as_learnt(learnt, {}) is learnt


@pytest.mark.parametrize("shift", ["[1.0]", "[0, 1, NaN]", "1", "no number"])
def test_a_file_whose_shift_is_none_is_told(shift):
    with pytest.raises(ValueError, match=r"must be 3 numbers|Expecting value"):
        as_learnt(np.full((2, 3), 1 / 3), {SHIFT: shift})


def test_photos_count_as_their_class_is_more_frequent_in_use():
    class_indices = np.repeat([0, 1], [90, 10])
    weights = weights_for_use(class_indices, NAMES, shares_of({SHARES: json.dumps(EVEN)}))
    assert weights is not None
    assert (weights[0], weights[-1], weights.mean()) == pytest.approx((50 / 90, 5.0, 1.0))
    assert independent_images(np.arange(100), weights) == 36  # 100 ** 2 / (90 * (50 / 90) ** 2 + 10 * 5 ** 2)
    assert weights_for_use(class_indices, NAMES, shares_of({})) is None


def test_figures_of_test_are_those_of_use():
    class_indices, wrong = np.repeat([0, 1], [90, 10]), np.zeros(100, int)
    probabilities = np.eye(2)[wrong] * 0.8 + 0.1  # everything is called common
    weights = weights_for_use(class_indices, NAMES, EVEN)
    report = classification_report(class_indices, probabilities, np.arange(100), bins=10, weights=weights)
    assert report["accuracy"] == pytest.approx(0.5)
    assert report["log_loss"] == pytest.approx(-np.log([0.9, 0.1]).mean())
    assert report["ece"] == pytest.approx(0.4)
    assert 0.33 < report["accuracy_low"] < report["accuracy_high"] < 0.67
    right = probabilities.argmax(axis=1) == class_indices
    outcome = outcome_of(None, right, probabilities.max(axis=1), np.arange(100), weights)
    assert outcome.precision is not None
    assert (outcome.coverage.value, outcome.precision.value) == pytest.approx((1, 0.5))
    assert risk_coverage(right, probabilities.max(axis=1), weights).precision.tolist() == pytest.approx([0.5])


@pytest.mark.parametrize(
    "shares", [EVEN, {"common": 19, "rare": 1}, {"common": 1, "rare": 3}, {"common": 9, "rare": 1}]
)
def test_a_sample_for_bounds_has_the_classes_as_frequent_as_in_use(shares):
    class_indices = np.random.default_rng(0).permutation(np.repeat([0, 1], [900, 100]))
    rows = rows_for_use(class_indices, NAMES, shares)
    taken = np.bincount(class_indices[rows], minlength=2)
    assert taken[1] / taken.sum() == pytest.approx(shares["rare"] / sum(shares.values()), abs=0.01)
    assert (taken == [900, 100]).any()


def test_without_shares_or_a_photo_of_a_class_all_photos_or_none_count():
    assert rows_for_use(np.array([0, 1, 0]), NAMES, None).tolist() == [0, 1, 2]
    assert rows_for_use(np.array([0, 0, 0]), NAMES, EVEN).tolist() == []
    choice = choose_threshold_in_use(np.zeros(400, int), np.eye(2)[np.zeros(400, int)], 0.9, np.zeros(0, int))
    assert choice.promise is None
    assert choice.words.endswith(
        "Of 400 val photos 0 count, so that classes are as frequent as in use (export_onnx.class_shares)."
    )


def test_a_promise_is_kept_in_use_and_that_of_all_val_photos_is_not():
    """Answers on the rare class are wrong more often than the others, and in use nine of ten photos are of it."""
    random, broken = np.random.default_rng(0), {"all photos": 0, "in use": 0}
    for _ in range(200):
        class_indices = (random.random(3000) < 0.1).astype(int)
        largest = random.uniform(0.5, 1, 3000)
        right = random.random(3000) < np.where(class_indices == 0, 0.999, largest)
        rows = rows_for_use(class_indices, NAMES, {"common": 1, "rare": 9})
        for name, part in (("all photos", np.arange(3000)), ("in use", rows)):
            promise = find_promise(right[part], largest[part], target=0.9)
            if promise:  # of those in use that are answered
                broken[name] += 0.1 * 0.999 + 0.9 * (1 + promise.abstain_below) / 2 < 0.9
    assert broken["all photos"] > 190
    assert broken["in use"] <= 0.05 * 200 + 8
