import numpy as np
import pytest

from regraft.core.statistics import tango_interval
from regraft.export.int8_agreement import agreement_of, fewest_photos, level_of, photos_that_would_do

EXACT = np.array([[0.9, 0.1], [0.55, 0.45], [0.2, 0.8], [0.4, 0.6]])


def changed(*rows: int) -> np.ndarray:
    ours = EXACT.copy()
    ours[list(rows)] = ours[list(rows), ::-1]
    return ours


def test_where_both_say_the_same_nothing_is_lost_and_few_photos_show_little():
    found = agreement_of(EXACT, EXACT, level=0.95)
    assert (found.images, found.differing, found.loss.value) == (4, 0, 0)
    assert found.loss.high == -tango_interval(0, 0, 4).low > 0.4


def test_a_photo_that_differs_costs_as_much_as_float32_was_sure_of_it():
    found = agreement_of(EXACT, changed(1, 3), level=0.95)
    assert found.differing == 2
    assert (found.only_float32, found.only_int8) == (pytest.approx(0.55 + 0.6), pytest.approx(0.45 + 0.4))
    assert found.loss.value == pytest.approx((0.1 + 0.2) / 4)
    expected = tango_interval(1.15, 0.85, 4)
    assert (found.loss.low, found.loss.high) == (pytest.approx(-expected.high), pytest.approx(-expected.low))
    assert found.largest_gap == pytest.approx(0.2)
    assert found.largest_difference == pytest.approx(0.2)


def test_if_float32_were_always_right_each_of_them_is_lost():
    assert agreement_of(EXACT, changed(1, 3), level=0.95).every_one_lost.value == 0.5


def test_the_rest_of_many_photos_may_be_thought_to_agree():
    ours = np.concatenate([changed(0), np.tile(EXACT, (24, 1))])
    whole = agreement_of(np.tile(EXACT, (25, 1)), ours, level=0.95)
    assert agreement_of(EXACT, changed(0), level=0.95, of=100).loss == whole.loss


def test_so_many_photos_are_needed_and_one_less_is_not_enough():
    assert fewest_photos(0.005, level=0.95) == 765
    zeros = [-tango_interval(0, 0, count).low for count in (764, 765)]
    assert zeros[0] > 0.005 >= zeros[1]


def test_the_expected_loss_is_right_on_average_where_probabilities_are_calibrated():
    random = np.random.default_rng(0)
    exact = random.dirichlet([1, 1, 1], 20_000)
    ours = exact + random.normal(0, 0.2, exact.shape)
    labels = (random.random((20_000, 1)) > exact.cumsum(axis=1)).sum(axis=1)
    right = [float((each.argmax(axis=1) == labels).mean()) for each in (exact, ours)]
    found = agreement_of(exact, ours, level=0.95)
    assert found.loss.value == pytest.approx(right[0] - right[1], abs=0.006)
    assert found.every_one_lost.value > 2 * found.loss.value


def test_photos_that_differ_cost_more_photos_and_a_loss_above_the_budget_cannot_be_shown_to_be_below_it():
    ours = np.concatenate([changed(1), np.tile(EXACT, (99, 1))])
    found = agreement_of(np.tile(EXACT, (100, 1)), ours, level=0.95)
    needed = photos_that_would_do(found, 0.005)
    assert needed
    b, c = found.only_float32 / 400, found.only_int8 / 400
    highs = [-tango_interval(b * count, c * count, count).low for count in (needed - 1, needed)]
    assert highs[0] > 0.005 >= highs[1]
    assert photos_that_would_do(found, 0.0002) is None


@pytest.mark.parametrize(("loss", "most"), [(0.01, 0.005), (0.005, 0.05)])
@pytest.mark.parametrize("pair", [(0.97, 0.02), (0.6, 0.35)])
def test_a_ladder_of_rungs_above_the_budget_seldom_ships_one_of_them(loss, most, pair):
    """Seven rungs, none of them like another, that cost the budget of 0.5 % or twice as much, on as few photos as do.

    A photo of two on which both files differ is one of the boundary, and float32 is sure of the others, as of photos
    that it was trained on.
    """
    random, budget, draws = np.random.default_rng(1), 0.005, 1000
    for count in (765, 4000):
        shares = random.binomial(count, loss / (pair[0] - pair[1]), (draws, 7))
        ships = np.zeros(draws, bool)
        for rung in range(7):
            passes = {}
            for differing in np.unique(shares[:, rung]).tolist():
                exact = np.tile([0.99, 0.01], (count, 1))
                exact[:differing] = pair
                ours = exact.copy()
                ours[:differing] = pair[::-1]
                passes[differing] = agreement_of(exact, ours, level=level_of(rung)).loss.high <= budget
            ships |= np.vectorize(passes.get)(shares[:, rung])
        assert ships.mean() <= most
