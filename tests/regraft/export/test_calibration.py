"""The temperature: found where it helps, 1 where nothing shows that it does, and without effect on what is answered."""

import json

import numpy as np
import pytest

from regraft.core.errors import InvalidParams
from regraft.export.abstention import choose_threshold
from regraft.export.calibration import (
    SHARES,
    SHIFT,
    as_learnt,
    choose_temperature,
    logits_of,
    rows_for_use,
    shares_of,
    shift_for_use,
    softmax,
    weights_for_use,
)
from regraft.export.evaluation import as_trained, classification_report, outcome_of, reliability, risk_coverage
from regraft.photos.groups import independent_images
from regraft.training.metrics import objective_of
from regraft.training.network_file import Head, HeadSettings

PLAIN = objective_of("none")


def draw(count: int, temperature: float, *, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model whose probabilities are right at this temperature, and the true classes."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes)) * 2
    shares = softmax(logits)
    classes_of = np.array([random.choice(classes, p=row) for row in shares])
    return logits * temperature, classes_of


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_it_finds_the_temperature_that_a_model_is_off_by(temperature):
    logits, class_indices = draw(3000, temperature)
    found = choose_temperature(logits, class_indices, PLAIN)
    assert found.best == pytest.approx(temperature, rel=0.1)
    assert found.temperature == pytest.approx(temperature, rel=0.15)
    assert abs(np.log(found.temperature)) < abs(np.log(found.best))  # nearer to none
    assert found.gain > 0.02
    assert found.words.startswith("Logits are divided by ")


def test_a_calibrated_model_stays_as_it_is():
    kept = [choose_temperature(*draw(300, 1.0, seed=seed), PLAIN).temperature == 1.0 for seed in range(20)]
    assert sum(kept) >= 17


def test_without_mistakes_nothing_says_how_sure_a_model_may_be():
    # All right, and not very sure of it: every photo would gain by the coldest temperature.
    found = choose_temperature(np.eye(4)[np.arange(60) % 4] * 2, np.arange(60) % 4, PLAIN)
    assert (found.temperature, found.best) == (1.0, 1.0)
    assert "0 mistakes on 60 val photos are too few to fit a temperature to; it takes 10" in found.words


def test_the_balanced_loss_gives_a_rare_class_as_much_weight_as_a_frequent_one():
    random = np.random.default_rng(0)
    class_indices = np.repeat([0, 1], [4750, 250])
    # The frequent class is named with too little confidence, the rare one with far too much.
    margin = np.where(class_indices == 0, 1.5, np.where(random.random(5000) < 0.8, 6.0, -6.0))
    logits = np.stack([np.where(class_indices == 0, margin, 0), np.where(class_indices == 1, margin, 0)], axis=1)
    plain = choose_temperature(logits, class_indices, PLAIN).temperature
    assert plain < 1 < choose_temperature(logits, class_indices, objective_of("balanced")).temperature


def test_no_photo_gets_another_class_and_the_figures_before_can_be_told_from_the_file():
    random = np.random.default_rng(1)
    head = Head(
        HeadSettings(0, "relu", "lbfgs", 0.0, 0.0, 0.1, 0.0), [random.normal(size=(8, 5)), random.normal(size=5)]
    )
    features, shift = random.normal(size=(50, 8)).astype(np.float32), random.normal(size=5)
    before, cooled = head.probabilities(features), head.rescaled(1.7).probabilities(features)
    assert np.array_equal(before.argmax(axis=1), cooled.argmax(axis=1))
    assert cooled == pytest.approx(softmax(logits_of(before) / 1.7), abs=1e-6)
    shifted = head.rescaled(1.7, shift).probabilities(features)
    facts = {"temperature": "1.7", "logit_shift": str(shift.tolist())}
    assert as_trained(shifted, facts) == pytest.approx(before, abs=1e-5)


def test_another_mix_of_classes_in_use_is_bayes_rule():
    trained_on, names = np.repeat([0, 1], [90, 10]), ["common", "rare"]
    assert shift_for_use(None, names, trained_on, "none") is None
    shift = shift_for_use({"common": 1, "rare": 1}, names, trained_on, "none")
    # A photo on which a model is undecided is nine times as likely of the class that it hardly saw.
    assert shift is not None
    assert np.exp(shift[1] - shift[0]) == pytest.approx(9)
    balanced = shift_for_use({"common": 3, "rare": 1}, names, trained_on, "balanced")
    assert balanced is not None
    assert np.exp(balanced[0] - balanced[1]) == pytest.approx(3)
    with pytest.raises(InvalidParams, match=r"export_onnx\.class_shares: .* Missing, or unknown: rare, rear\."):
        shift_for_use({"common": 1, "rear": 1}, names, trained_on, "none")


def test_the_bins_of_the_diagram_have_every_photo_before_and_after():
    logits, class_indices = draw(300, 1.0)
    probabilities = softmax(logits)
    table = reliability(class_indices, probabilities, {"temperature": "0.8"}, bins=10)
    assert table.groupby("when").images.sum().to_dict() == {"after": 300, "before": 300}
    after = table[table.when == "after"]
    right = probabilities.argmax(axis=1) == class_indices
    assert (after.images * after.accuracy).sum() == pytest.approx(right.sum())
    assert (after.images * after.confidence).sum() == pytest.approx(probabilities.max(axis=1).sum())
    assert np.isfinite(logits_of(np.array([[0.0, 1.0]]))).all()


NAMES = ["common", "rare"]
EVEN = {"common": 1.0, "rare": 1.0}


def test_without_its_shift_a_file_says_what_it_said_without_the_setting():
    learnt = np.random.default_rng(0).dirichlet([1, 1, 1], 50).astype(np.float32)
    shift = np.array([0.0, 3.0, -2.0])
    in_use = learnt * np.exp(shift)
    in_use = (in_use / in_use.sum(axis=1, keepdims=True)).astype(np.float32)
    assert as_learnt(in_use, {SHIFT: json.dumps(shift.tolist())}) == pytest.approx(learnt, abs=1e-5)
    assert as_learnt(learnt, {}) is learnt


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
    choice = choose_threshold(np.ones(400, bool), np.ones(400), 0.9, np.zeros(0, int))
    assert choice.promise is None
    assert choice.words.endswith(
        "Of 400 val photos 0 count, so that classes are as frequent as in use (export_onnx.class_shares)."
    )
