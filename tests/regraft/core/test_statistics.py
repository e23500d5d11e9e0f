"""Two classifiers on the same photos."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binomtest, multinomial

from regraft.core.statistics import (
    evidence_of_harm,
    exact_mcnemar,
    holm,
    least_share,
    mean_interval,
    not_worse,
    smallest_loss_shown,
    tango_interval,
    tango_z,
)


@pytest.mark.parametrize(("b", "c"), [(3, 10), (0, 5), (7, 7), (0, 0), (4, 0)])
def test_the_exact_test_is_a_binomial_one(b: int, c: int) -> None:
    expected = binomtest(c, b + c, alternative="greater").pvalue if b + c else 1.0
    assert exact_mcnemar(b, c) == pytest.approx(expected)


def test_without_a_difference_tangos_statistic_is_mcnemars() -> None:
    assert tango_z(4, 10, 100, 0.0) == pytest.approx(6 / np.sqrt(14))


def test_tangos_statistic_has_the_most_likely_share_under_the_hypothesis() -> None:
    b, c, n, delta = 9, 5, 120, -0.04

    def log_likelihood(q: np.ndarray) -> np.ndarray:
        return b * np.log(q) + c * np.log(q + delta) + (n - b - c) * np.log(1 - 2 * q - delta)

    shares = np.linspace(0.0401, 0.3, 200_001)
    best = shares[log_likelihood(shares).argmax()]
    variance = n * (2 * best + delta * (1 - delta))
    assert tango_z(b, c, n, delta) == pytest.approx((c - b - n * delta) / np.sqrt(variance), rel=1e-3)


def test_equal_answers_leave_the_interval_that_the_number_of_photos_allows() -> None:
    # Without any difference Tango's interval is z^2 / (n + z^2) to both sides.
    found = tango_interval(0, 0, 50)
    assert (found.low, found.high) == pytest.approx((-3.8415 / 53.8415, 3.8415 / 53.8415), abs=1e-4)


def test_the_interval_holds_what_the_test_does_not_reject() -> None:
    found = tango_interval(14, 6, 300)
    assert tango_z(14, 6, 300, found.low) == pytest.approx(1.95996, abs=1e-3)
    assert tango_z(14, 6, 300, found.high) == pytest.approx(-1.95996, abs=1e-3)


def test_the_interval_covers_the_difference_as_often_as_it_says() -> None:
    counts = [(b, c) for b in range(25) for c in range(20)]
    chances = multinomial.pmf([[b, c, 100 - b - c] for b, c in counts], 100, [0.08, 0.05, 0.87])
    found = [tango_interval(b, c, 100) for b, c in counts]
    covered = [each.low <= -0.03 <= each.high for each in found]
    assert chances.sum() > 0.999
    assert chances[covered].sum() == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("images", [200, 346, 1000])
def test_a_loss_of_the_margin_passes_as_not_worse_in_one_of_twenty(images: int) -> None:
    random = np.random.default_rng(1)
    b, c, _ = random.multinomial(images, [0.05, 0.03, 0.92], size=20_000).T
    assert np.mean(not_worse(b, c, images, 0.02) <= 0.05) == pytest.approx(0.05, abs=0.012)


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


def test_an_e_value_of_equal_models_seldom_ever_reaches_twenty() -> None:
    wins = np.random.default_rng(2).integers(0, 2, (2000, 200)).cumsum(axis=1)
    values = evidence_of_harm(wins, np.arange(1, 201) - wins)
    assert np.mean((values >= 20).any(axis=1)) <= 0.05


def test_a_one_sided_bound_is_below_the_share() -> None:
    assert least_share(98, 100) == pytest.approx(0.93838, abs=1e-4)
    assert least_share(100, 100) == pytest.approx(0.05 ** (1 / 100))
