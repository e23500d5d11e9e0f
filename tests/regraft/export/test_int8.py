import numpy as np
import pytest

from regraft.core.statistics import tango_interval
from regraft.export.int8 import agreement_of, fewest_photos

EXACT = np.array([[0.9, 0.1], [0.55, 0.45], [0.2, 0.8], [0.4, 0.6]])


def changed(*rows: int) -> np.ndarray:
    ours = EXACT.copy()
    ours[list(rows)] = ours[list(rows), ::-1]
    return ours


def test_a_photo_that_differs_costs_as_much_as_float32_was_sure_of_it():
    found = agreement_of(EXACT, changed(1, 3))
    assert (found.images, found.differing) == (4, 2)
    assert found.loss.value == pytest.approx((0.1 + 0.2) / 4)
    expected = tango_interval(0.55 + 0.6, 0.45 + 0.4, 4)
    assert (found.loss.low, found.loss.high) == (pytest.approx(-expected.high), pytest.approx(-expected.low))


@pytest.mark.parametrize("budget", [0.005, 0.02, 0.4])
def test_so_many_photos_are_needed_and_one_less_is_not_enough(budget):
    needed = fewest_photos(budget)
    highs = [-tango_interval(0, 0, count).low for count in (needed - 1, needed)]
    assert highs[0] > budget >= highs[1]


def test_the_expected_loss_is_right_on_average_where_probabilities_are_calibrated():
    random = np.random.default_rng(0)
    exact = random.dirichlet([1, 1, 1], 20_000)
    ours = exact + random.normal(0, 0.2, exact.shape)
    labels = (random.random((20_000, 1)) > exact.cumsum(axis=1)).sum(axis=1)
    right = [float((each.argmax(axis=1) == labels).mean()) for each in (exact, ours)]
    assert agreement_of(exact, ours).loss.value == pytest.approx(right[0] - right[1], abs=0.006)
