"""The temperature: found where it helps, 1 where nothing shows that it does, and without effect on what is answered."""

import numpy as np
import pytest

from regraft.core.errors import InvalidParams
from regraft.export.calibration import COLDEST, choose_temperature, logits_of, shift_for_use, softmax
from regraft.export.reliability import as_trained, reliability
from regraft.training.evaluation import ece_by_chance, expected_calibration_error
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


def test_a_temperature_beyond_the_limits_is_not_sought():
    assert choose_temperature(*draw(2000, 0.1), PLAIN).best == pytest.approx(COLDEST, abs=1e-2)


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


def test_a_calibrated_model_has_the_calibration_error_that_chance_gives():
    errors, expected = [], []
    for seed in range(30):
        logits, class_indices = draw(200, 1.0, seed=seed)
        probabilities = softmax(logits)
        errors.append(expected_calibration_error(class_indices, probabilities, bins=15))
        expected.append(ece_by_chance(probabilities, bins=15))
    assert np.mean(errors) == pytest.approx(np.mean(expected), rel=0.1)
    assert np.mean(expected) > 0.05  # 200 photos in 15 bins: no small matter


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
