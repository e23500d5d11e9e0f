import numpy as np
import pytest

from regraft.core.statistics import least_share, wilson
from regraft.export.abstention import choose_threshold, fewest_photos, find_promise
from regraft.export.evaluation import outcome_of, risk_coverage
from regraft.serving.thresholds import Promise


def drawn(random: np.random.Generator, count: int, error_of) -> tuple[np.ndarray, np.ndarray]:
    """Answers whose chance of an error follows from how confident they are: the share of photos that are more so."""
    above = random.random(count)
    return random.random(count) >= error_of(above), (1 - above).astype(np.float32)


def calibrated(above: np.ndarray) -> np.ndarray:
    """Of 93 % of photos the class is named; the most confident 80 % are wrong in 2 % at most."""
    return 0.6 * above**8


def confidently_wrong(above: np.ndarray) -> np.ndarray:
    """The most confident photos are wrong more often than those below."""
    return np.where(above < 0.1, 0.1, 0.5 * np.clip(above - 0.5, 0, 1) ** 2)


@pytest.mark.parametrize("error_of", [calibrated, confidently_wrong])
@pytest.mark.parametrize(("count", "draws"), [(200, 700), (1000, 500), (5000, 250)])
def test_the_promise_is_broken_on_fresh_photos_in_at_most_five_draws_of_a_hundred(error_of, count, draws):
    random, broken = np.random.default_rng(count), 0
    grid = (np.arange(100_000) + 0.5) / 100_000
    precision = 1 - np.cumsum(error_of(grid)) / np.arange(1, len(grid) + 1)
    for _ in range(draws):
        promise = find_promise(*drawn(random, count, error_of), target=0.98)
        if promise:
            answered = min(int((1 - promise.abstain_below) * len(grid)), len(grid) - 1)
            broken += precision[answered] < 0.98 - 1e-9
    # Two standard errors above five in a hundred.
    assert broken / draws <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / draws)


def test_the_lowest_threshold_that_passes_is_just_above_the_next_photo():
    largest = np.linspace(1, 0.5, 400, dtype=np.float32)
    promise = find_promise(np.arange(400) < 300, largest, target=0.98)
    assert promise
    answered = int((largest >= promise.abstain_below).sum())
    assert answered == 300  # 320 would be next: 20 errors
    assert least_share(300, 300) >= 0.98


def test_a_model_that_is_right_of_all_photos_answers_everything():
    promise = find_promise(np.ones(400, bool), np.linspace(1, 0.5, 400), target=0.98)
    assert promise == Promise(0.0, 0.98, 0.95)
    assert str(promise) == "whatever the probability, at least 98% of answers are right (95% confidence)"


def test_photos_of_equal_probability_are_answered_all_or_not_at_all():
    right = np.arange(400) < 390
    assert find_promise(right, np.ones(400, np.float32), target=0.98) is None
    two_levels = np.where(np.arange(400) < 250, 0.9, 0.7).astype(np.float32)
    promise = find_promise(right & (np.arange(400) < 250), two_levels, target=0.98)
    assert promise
    assert (two_levels >= promise.abstain_below).sum() == 250


@pytest.mark.parametrize(("target", "fewest"), [(0.9, 29), (0.98, 149), (0.99, 299)])
def test_so_many_photos_without_an_error_are_just_enough(target, fewest):
    assert fewest_photos(target) == fewest
    enough, largest = np.ones(fewest, bool), np.linspace(1, 0.5, fewest)
    assert find_promise(enough, largest, target=target)
    assert find_promise(enough[1:], largest[1:], target=target) is None


@pytest.mark.parametrize(
    ("right", "target", "words"),
    [
        (np.ones(30, bool), 0.98, "to show that 98% of answers are right takes 149 val photos, and there were 30"),
        (np.zeros(300, bool), 0.98, "300 val photos show of no probability that 98%"),
        (np.ones(300, bool), None, "It answers every photo"),
    ],
)
def test_where_nothing_can_be_promised_it_says_why(right, target, words):
    choice = choose_threshold(right, np.linspace(1, 0.5, len(right)), target)
    assert (choice.promise, choice.answered) == (None, len(right))
    assert words in choice.words


def test_the_risk_coverage_curve_goes_from_the_surest_photo_to_all():
    curve = risk_coverage(np.array([True, False, True, True]), np.array([0.9, 0.8, 0.8, 0.6]))
    assert curve.threshold.tolist() == [0.9, 0.8, 0.6]
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]
    assert curve.precision.tolist() == pytest.approx([1, 2 / 3, 0.75])


def test_what_was_promised_is_measured_on_photos_that_chose_nothing():
    right, largest, groups = np.arange(100) < 90, np.linspace(1, 0.5, 100), np.arange(100).astype(str)
    answers = outcome_of(Promise(0.75, 0.98, 0.95), right, largest, groups)
    assert answers.precision
    assert (answers.answered, answers.coverage.value, answers.precision.value) == (50, 0.5, 1.0)
    assert 0 < answers.precision.low < answers.precision.high == 1
    assert answers.words.startswith("Of 100 test photos 50.0% (40.4% to 59.6%) are answered, and 100.0% (9")
    assert outcome_of(None, right, largest, groups).precision == wilson(90, 100)


@pytest.mark.parametrize(("wrong", "is_said"), [(5, True), (1, False)])
def test_a_promise_that_test_contradicts_is_said(wrong, is_said):
    right, groups = np.arange(100) >= wrong, np.arange(100).astype(str)
    answers = outcome_of(Promise(0.5, 0.98, 0.95), right, np.ones(100), groups)
    assert ("less than was promised" in answers.words) is is_said
