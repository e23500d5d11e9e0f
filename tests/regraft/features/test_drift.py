import numpy as np
import pytest
from PIL import Image, ImageEnhance

from regraft.demo_data import write_digits
from regraft.features.drift import measure_drift
from tests.support.points import clouds


def darkened(photo: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(photo).enhance(0.35)


def test_without_a_reference_there_is_no_drift_to_measure():
    assert measure_drift(None, clouds(0)[0], 0.001) is None


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


def test_a_batch_of_one_class_is_no_drift():
    points, labels = clouds(0, images=600)
    drift = measure_drift(points[:400], points[400:][labels[400:] == 1], 0.001)
    assert drift is not None
    assert not drift.is_drift


def test_copies_of_the_reference_are_no_drift():
    points = clouds(0)[0]
    drift = measure_drift(points, points[:100], 0.001)
    assert drift is not None
    assert not drift.is_drift


def test_constant_features_do_not_drift():
    drift = measure_drift(np.ones((60, 8), np.float32), np.ones((30, 8), np.float32), 0.001)
    assert drift is not None
    assert (drift.is_drift, drift.far_share) == (False, 0)


def test_the_limits_are_wider_for_fewer_photos():
    points = clouds(0)[0]
    many, few = (measure_drift(points, clouds(1)[0][:count], 0.001) for count in (200, 20))
    assert many is not None
    assert few is not None
    assert many.population_stability_limit < few.population_stability_limit
    assert many.far_share_limit < few.far_share_limit


def test_darkened_digits_are_drift_and_others_of_the_same_kind_are_not(features_of, tmp_path):
    write_digits(tmp_path)
    paths = sorted(tmp_path.rglob("*.png"))
    chosen = [paths[index] for index in np.random.default_rng(0).permutation(len(paths))[:300]]
    reference, new, dark = features_of(chosen[:200]), features_of(chosen[200:]), features_of(chosen[200:], darkened)
    same, changed = (measure_drift(reference, features, 0.001) for features in (new, dark))
    assert same is not None
    assert changed is not None
    assert (same.is_drift, changed.is_drift) == (False, True)
