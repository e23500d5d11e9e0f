"""The benchmark of the keep test: its rates on answers that are made up."""

import numpy as np
import pytest

from benchmarks.epochs import Said
from benchmarks.keep_test import exact_rate, exchanged, rates, shipped, shuffled, simulated


def said(is_right: np.ndarray) -> Said:
    """What was said of two classes, where each epoch's answers are right as given, shape (epochs + 1, n)."""
    classes = np.arange(is_right.shape[1]) % 2
    sure = np.float32(0.9)
    of_truth = np.where(is_right, sure, 1 - sure)
    probabilities = np.where(classes[:, None] == [0, 1], of_truth[..., None], 1 - of_truth[..., None])
    return Said(classes, probabilities)


@pytest.fixture
def better() -> Said:
    """A head that is wrong on 10 of 100 photos, and epochs that are right on one more each."""
    return said(np.arange(100) >= 10 - np.arange(11)[:, None])


def test_the_exact_rate_is_that_of_a_hand_computed_example():
    # Of four photos on which the two differ all must be right after: 5 of 16 outcomes have three or four, 1 has four.
    assert exact_rate(4, 1.0, 0.25) == pytest.approx(1 / 16, abs=0.001)


def test_the_best_epoch_has_the_most_photos_and_then_the_lowest_log_loss():
    gains = np.zeros((1, 3, 8), np.int8)
    gains[0, 1:, :3] = 1  # p = 1/8
    gains[0, 2, 3:5] = -1  # p = 1/2
    assert {rule: used.tolist() for rule, used in rates(gains, np.zeros((1, 3)), 0.25).items()} == {
        "best": [True],
        "last": [False],
    }
    # No photo is gained: with a lower log loss the best epoch is no longer the head, but p is 1.
    assert not rates(gains[:, :1], np.full((1, 1), -0.1), 0.25)["best"].any()


def test_who_chooses_an_epoch_on_val_keeps_more_networks_that_are_no_better():
    found = simulated(150, 0.8, 400, 0.25)
    assert found["best"] > 0.3 > 0.25 > found["last"] > 0.1


def test_network_and_head_are_equally_good_when_they_change_places(better):
    # The network is better on every photo on which the two differ; 0.3 is a quarter and two standard errors.
    assert exchanged([better], 100, 400, 0.25)["last"] < 0.3
    assert shuffled([better], 400, 0.25)["last"] < 0.3


def test_what_ships_is_measured_on_test(better):
    found = shipped([{"val": better, "test": better}], 0.25)
    assert found["runs"] == [
        {"head": 0.9, "best": 1.0, "last": 1.0, "best_epoch": 10, "last_epoch": 10, "if_always_kept": 1.0}
    ]
    assert found["differences"]["last - head"].startswith("10.0% (")
