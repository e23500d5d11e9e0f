"""Two classifiers on the same photos."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binomtest

from regraft.core.statistics import (
    evidence_of_harm,
    exact_mcnemar,
    holm,
    least_share,
    mean_interval,
    smallest_loss_shown,
    tango_z,
)


@pytest.mark.parametrize(("b", "c"), [(3, 10), (0, 5), (7, 7), (0, 0), (4, 0)])
def test_the_exact_test_is_a_binomial_one(b: int, c: int) -> None:
    expected = binomtest(c, b + c, alternative="greater").pvalue if b + c else 1.0
    assert exact_mcnemar(b, c) == pytest.approx(expected)


def test_tangos_statistic_has_the_most_likely_share_under_the_hypothesis() -> None:
    b, c, n, delta = 9, 5, 120, -0.04

    def log_likelihood(q: np.ndarray) -> np.ndarray:
        return b * np.log(q) + c * np.log(q + delta) + (n - b - c) * np.log(1 - 2 * q - delta)

    shares = np.linspace(0.0401, 0.3, 200_001)
    best = shares[log_likelihood(shares).argmax()]
    variance = n * (2 * best + delta * (1 - delta))
    assert tango_z(b, c, n, delta) == pytest.approx((c - b - n * delta) / np.sqrt(variance), rel=1e-3)


def test_the_smallest_loss_shown_is_that_of_the_power() -> None:
    assert [smallest_loss_shown(b, b, n) for b, n in ((8, 200), (14, 346), (40, 1000), (200, 5000))] == pytest.approx(
        [0.050, 0.038, 0.022, 0.010], abs=0.001
    )
    assert smallest_loss_shown(0, 0, 100) == 0.05


def test_holm_keeps_the_order_and_multiplies_the_smallest_most() -> None:
    assert holm([0.01, 0.04, 0.03, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.9])
    assert holm([]).size == 0


def test_an_interval_of_one_difference_is_any() -> None:
    assert mean_interval(np.array([0.3])).low == -np.inf
    found = mean_interval(np.array([0.0, 1.0, 2.0]))
    assert (found.low, found.high) == pytest.approx((1 - 4.30265 / np.sqrt(3), 1 + 4.30265 / np.sqrt(3)), abs=1e-4)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (9, 3), (2, 7)])
def test_the_e_value_is_an_average_of_likelihoods(b: int, c: int) -> None:
    expected = 2 ** (b + c) * quad(lambda p: 2 * p**b * (1 - p) ** c, 0.5, 1)[0]
    assert evidence_of_harm(b, c) == pytest.approx(expected)


def test_a_one_sided_bound_is_below_the_share() -> None:
    assert least_share(98, 100) == pytest.approx(0.93838, abs=1e-4)
    assert least_share(100, 100) == pytest.approx(0.05 ** (1 / 100))
