import numpy as np
import pytest

from regraft.export.int8_agreement import agreement_of, fewest_photos
from regraft.paired_tests import tango_interval

EXACT = np.array([[0.9, 0.1], [0.55, 0.45], [0.2, 0.8], [0.4, 0.6]])


def changed(*rows: int) -> np.ndarray:
    ours = EXACT.copy()
    ours[list(rows)] = ours[list(rows), ::-1]
    return ours


def test_where_both_say_the_same_nothing_is_lost_and_few_photos_show_little():
    found = agreement_of(EXACT, EXACT, np.ones(4, bool))
    assert (found.images, found.differing, found.loss.value, found.loss_on_val) == (4, 0, 0, 0)
    assert found.loss.high == -tango_interval(0, 0, 4).low > 0.4


def test_a_photo_that_differs_costs_as_much_as_float32_was_sure_of_it():
    found = agreement_of(EXACT, changed(1, 3), np.array([True, True, False, False]))
    assert found.differing == 2
    assert (found.only_float32, found.only_int8) == (pytest.approx(0.55 + 0.6), pytest.approx(0.45 + 0.4))
    assert found.loss.value == pytest.approx((0.1 + 0.2) / 4)
    expected = tango_interval(1.15, 0.85, 4)
    assert (found.loss.low, found.loss.high) == (pytest.approx(-expected.high), pytest.approx(-expected.low))
    assert found.loss_on_val == pytest.approx(0.1 / 2)
    assert found.largest_gap == pytest.approx(0.2)
    assert found.largest_difference == pytest.approx(0.2)


def test_if_float32_were_always_right_each_of_them_is_lost():
    assert agreement_of(EXACT, changed(1, 3), np.zeros(4, bool)).every_one_lost.value == 0.5


def test_the_rest_of_many_photos_may_be_thought_to_agree():
    whole = agreement_of(
        np.tile(EXACT, (25, 1)), np.concatenate([changed(0), np.tile(EXACT, (24, 1))]), np.ones(100, bool)
    )
    assert agreement_of(EXACT, changed(0), np.ones(4, bool), of=100).loss == whole.loss


def test_so_many_photos_are_needed_and_one_less_is_not_enough():
    assert fewest_photos(0.005) == 765
    zeros = [-tango_interval(0, 0, count).low for count in (764, 765)]
    assert zeros[0] > 0.005 >= zeros[1]


def test_the_expected_loss_is_right_on_average_where_probabilities_are_calibrated():
    random = np.random.default_rng(0)
    exact = random.dirichlet([1, 1, 1], 20_000)
    ours = exact + random.normal(0, 0.2, exact.shape)
    labels = (random.random((20_000, 1)) > exact.cumsum(axis=1)).sum(axis=1)
    right = [float((each.argmax(axis=1) == labels).mean()) for each in (exact, ours)]
    found = agreement_of(exact, ours, np.ones(20_000, bool))
    assert found.loss.value == pytest.approx(right[0] - right[1], abs=0.006)
    assert found.every_one_lost.value > 2 * found.loss.value
