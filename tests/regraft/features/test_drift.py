import numpy as np
import pytest

from regraft.features.drift import Drift, Sample
from regraft.features.drift import measure_drift as measure_drift_of
from tests.support.points import clouds


def measure_drift(reference: np.ndarray, new: np.ndarray, significance: float) -> Drift | None:
    """Photos of one class."""
    ones, others = (Sample(points, np.full(len(points), "any")) for points in (reference, new))
    return measure_drift_of(ones, others, significance)


def labelled(seed: int, images: int = 600) -> Sample:
    points, labels = clouds(seed, images)
    return Sample(points, np.array([f"class {label}" for label in labels]))


@pytest.mark.parametrize(("reference", "new"), [(49, 300), (300, 19), (300, 0)])
def test_too_few_photos_cannot_tell_drift_from_chance(reference, new):
    assert measure_drift(clouds(0)[0][:reference], clouds(1)[0][:new], 0.001) is None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("reference", "new"), [(50, 20), (300, 30), (300, 300), (60, 2000)])
def test_photos_of_the_same_kind_are_no_drift(seed, reference, new):
    points = clouds(seed, images=reference + new)[0]
    order = np.random.default_rng(seed).permutation(len(points))
    drift = measure_drift(points[order[:reference]], points[order[reference:]], 0.001)
    assert drift is not None
    assert not drift.is_drift


@pytest.mark.parametrize("change", [lambda points: points**2, lambda points: points[:, ::-1]])
def test_features_that_have_changed_are_drift(change):
    drift = measure_drift(clouds(0)[0], change(clouds(1)[0][:60]), 0.001)
    assert drift is not None
    assert drift.is_drift
    assert drift.far_share > drift.far_share_limit


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_of_one_class_is_no_drift(seed):
    reference, new = labelled(0), labelled(seed + 1)
    drift = measure_drift_of(reference, new.part(new.labels == "class 1"), 0.001)
    assert drift is not None
    assert not drift.is_drift


def test_photos_of_a_class_that_was_not_there_are_left_out():
    reference, new = labelled(0), labelled(1, images=90)
    known = reference.part(reference.labels != "class 2")
    drift = measure_drift_of(known, new, 0.001)
    assert drift is not None
    assert drift.new == 60


def test_a_small_difference_of_many_photos_is_more_than_chance_and_no_drift():
    reference, new = (Sample(clouds(seed, 1600, 1)[0], np.full(1600, "any")) for seed in (0, 1))
    moved = Sample(new.features * (1 + 0.02 * np.arange(48) / 48).astype(np.float32), new.labels)
    drift = measure_drift_of(reference, moved, 0.001)
    assert drift is not None
    assert not drift.is_drift
    assert (drift.shift_limit, drift.population_stability_limit, drift.far_share_limit) == (0.8, 0.25, 0.05)
