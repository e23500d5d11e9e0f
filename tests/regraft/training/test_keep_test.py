from itertools import product

import numpy as np
import pytest
from scipy import stats

from regraft.training.class_weights import objective_of
from regraft.training.keep_test import Answers, keep_test
from regraft.training.metrics import Objective, log_losses, score

ACCURACY, RECALL = objective_of("none"), objective_of("balanced")
# 12 images of class 0, 6 of class 1, 2 of class 2; of class 3 there is none.
CLASSES = np.repeat([0, 1, 2], [12, 6, 2])
WRONG = 3


def predictions(right: list[int]) -> np.ndarray:
    """Predictions that are right for these images only."""
    predicted = np.full(len(CLASSES), WRONG)
    predicted[right] = CLASSES[right]
    return predicted


def answers(predicted: np.ndarray, loss: float = 0.5) -> Answers:
    return Answers(predicted, np.full(len(predicted), loss))


def p_of(before: list[int], after: list[int], objective: Objective) -> float:
    return keep_test(CLASSES, answers(predictions(before)), answers(predictions(after)), objective).p


def exact_p(before: list[int], after: list[int]) -> float:
    """Count all ways to exchange the answers to images on which one of the two is right."""
    images = np.bincount(CLASSES)
    signs = dict.fromkeys(set(before) - set(after), -1) | dict.fromkeys(set(after) - set(before), 1)
    weights = [1 / images[CLASSES[image]] for image in signs]
    seen = sum(weight * sign for weight, sign in zip(weights, signs.values(), strict=True))
    gains = [np.dot(weights, ways) for ways in product([-1, 1], repeat=len(weights))]
    return float(np.mean(np.array(gains) >= seen - 1e-9))


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [([0, 1], [0, 2], (1, 1)), ([], [0, 1, 2, 3], (0, 4)), ([5], [5], (0, 0)), ([0, 1, 2, 3], [2, 3], (2, 0))],
)
@pytest.mark.parametrize("objective", [ACCURACY, RECALL])
def test_images_on_which_one_of_two_is_right_are_counted(before, after, counts, objective):
    test = keep_test(CLASSES, answers(predictions(before)), answers(predictions(after)), objective)
    assert (test.only_before, test.only_after, test.figure) == (*counts, objective.share)


@pytest.mark.parametrize(("only_before", "only_after"), [(0, 0), (0, 5), (5, 0), (3, 9), (9, 10)])
def test_of_accuracy_it_is_the_exact_mcnemar_test(only_before, only_after):
    count = only_before + only_after
    expected = stats.binomtest(only_after, count, 0.5, alternative="greater").pvalue if count else 1.0
    before, after = list(range(only_before)), list(range(only_before, count))
    assert p_of(before, after, ACCURACY) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("before", "after"), [([0, 1, 2], [18]), ([18], [0, 1, 2]), ([0, 12], [1, 2, 13, 14, 19]), ([], [18, 19]), ([], [])]
)
def test_of_macro_recall_it_is_the_share_of_all_exchanges_with_such_a_gain(before, after):
    assert p_of(before, after, RECALL) == pytest.approx(exact_p(before, after), abs=1e-12)


def test_of_macro_recall_it_is_mcnemars_where_classes_have_as_many_images():
    classes = np.repeat([0, 1, 2], 4)
    before, after = np.full(12, WRONG), np.full(12, WRONG)
    before[:2], after[2:9] = classes[:2], classes[2:9]
    p = [keep_test(classes, answers(before), answers(after), objective).p for objective in (ACCURACY, RECALL)]
    assert p[0] == pytest.approx(p[1], abs=1e-12)


def test_a_rare_class_counts_more_in_macro_recall():
    # Of 2 photos of a rare class both, against 3 of 12 of a frequent one: only if both are exchanged it is no gain.
    assert p_of([0, 1, 2], [18, 19], RECALL) == 0.25
    assert p_of([0, 1, 2], [18, 19], ACCURACY) == pytest.approx(0.8125)


def test_many_images_of_many_classes_take_no_time():
    random = np.random.default_rng(0)
    classes = np.concatenate([np.arange(200), random.choice(200, 20_000, p=random.dirichlet(np.ones(200)))])
    before, after = (np.where(random.random(len(classes)) < share, classes, -1) for share in (0.9, 0.91))
    assert 0 < keep_test(classes, answers(before), answers(after), RECALL).p < 1


@pytest.mark.parametrize(
    ("objective", "name"),
    [(ACCURACY, "exact one-sided McNemar test of accuracy"), (RECALL, "one-sided permutation test of macro recall")],
)
def test_its_words_name_test_and_figure(objective, name):
    words = keep_test(CLASSES, answers(predictions([0])), answers(predictions([1, 2, 3, 4])), objective).words()
    assert words.startswith(f"4 val photos are right only with it, 1 only without it ({name}: p = 0.")


@pytest.mark.parametrize("objective", [ACCURACY, RECALL])
def test_without_a_gain_a_p_of_a_quarter_is_no_more_frequent_than_that(objective):
    random, rounds = np.random.default_rng(0), 400
    found = []
    for _ in range(rounds):
        differs = np.flatnonzero(random.random(len(CLASSES)) < 0.4)
        is_after = random.random(len(differs)) < 0.5
        found.append(p_of(differs[~is_after].tolist(), differs[is_after].tolist(), objective) <= 0.25)
    assert np.mean(found) <= 0.25 + 2 * np.sqrt(0.25 * 0.75 / rounds)


# What log loss has to say.


@pytest.mark.parametrize("objective", [ACCURACY, RECALL])
@pytest.mark.parametrize(("change", "expected"), [(-0.5, True), (0.02, True), (0.5, False)])
def test_a_network_whose_log_loss_is_shown_to_be_worse_is_not_used(objective, change, expected):
    random = np.random.default_rng(0)
    losses = random.exponential(size=len(CLASSES))
    before = Answers(predictions([]), losses)
    after = Answers(predictions(list(range(20))), losses + change + random.normal(0, 0.1, len(CLASSES)))
    test = keep_test(CLASSES, before, after, objective)
    assert test.p < 0.001
    assert test.speaks_for_it(0.25) is expected
    assert ("is worse by more than chance" in test.words()) is not expected


def test_the_change_of_the_balanced_log_loss_is_that_of_the_score():
    random = np.random.default_rng(0)
    said = [random.dirichlet(np.ones(4), len(CLASSES)) for _ in range(2)]
    scores = [score(CLASSES, each) for each in said]
    before, after = (Answers(each.argmax(axis=1), log_losses(CLASSES, each)) for each in said)
    for objective in (ACCURACY, RECALL):
        found = keep_test(CLASSES, before, after, objective).loss_change
        assert found.value == pytest.approx(objective.loss_of(scores[1]) - objective.loss_of(scores[0]))
