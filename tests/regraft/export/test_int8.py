import numpy as np
import pytest

from regraft.core.statistics import tango_interval
from regraft.export import int8
from regraft.export.int8 import agreement_of, fewest_photos, unsound, verdict_of

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
    assert found.largest_gap == pytest.approx(0.2)


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


@pytest.mark.parametrize("count", [765, 4000])
@pytest.mark.parametrize(("loss", "most"), [(0.005, 0.05), (0.01, 0.005)])
@pytest.mark.parametrize("pair", [(0.97, 0.02), (0.6, 0.35)])
def test_a_file_that_costs_the_budget_or_twice_as_much_seldom_passes(count, loss, most, pair):
    """Float32 is sure of the photos on which both agree, as of photos that it was trained on."""
    differing = np.random.default_rng(1).binomial(count, loss / (pair[0] - pair[1]), 2000)
    passes = {}
    for number in np.unique(differing).tolist():
        exact = np.tile([0.99, 0.01], (count, 1))
        exact[:number] = pair
        ours = exact.copy()
        ours[:number] = pair[::-1]
        passes[number] = agreement_of(exact, ours).loss.high <= 0.005
    assert np.vectorize(passes.get)(differing).mean() <= most


def test_an_answer_that_float32_is_sure_of_may_not_change(monkeypatch):
    exact = np.tile(np.array([[0.8, 0.2]]), (1000, 1))
    ours = exact.copy()
    ours[0] = 0.4, 0.6
    agreement = agreement_of(exact, ours)
    monkeypatch.setattr(int8, "MAX_GAP", 0.61)
    assert verdict_of(agreement, 0.02)[0]
    monkeypatch.setattr(int8, "MAX_GAP", 0.5)
    passed, words = verdict_of(agreement, 0.02)
    assert (passed, "0.60 apart, more than 0.5" in words) == (False, True)


class Wrong:
    """A file whose answers depend on the batch, or are none."""

    def __init__(self, *, in_a_batch: float = 0.0, alone: float = 0.0) -> None:
        self.preparation = lambda photo: photo[:8, :8]
        self._in_a_batch, self._alone = in_a_batch, alone

    def batch(self, photos: np.ndarray) -> np.ndarray:
        shift = self._in_a_batch if len(photos) > 1 else 0.0
        return np.array([[0.5 + self._alone + shift, 0.5 + self._alone - shift]] * len(photos))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (Wrong(), None),
        (Wrong(in_a_batch=0.01), "in a batch of 9 photos"),
        (Wrong(alone=0.1), "are no distribution"),
        (Wrong(alone=np.nan), "in a batch"),
    ],
)
def test_a_file_that_is_wrong_on_some_input_is_found(dataset, file, words):
    found = unsound(file, dataset.of("val"))
    assert found is None if words is None else words in found
