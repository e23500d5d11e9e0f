import json

import numpy as np
import pandas as pd
import pytest

from regraft.validation.histograms import histograms

LIMITS = {"brightness": (0.05, 0.95)}


def histogram(now: list[float], former: list[float] | None = None) -> dict:
    tables = [None if values is None else pd.DataFrame({"brightness": values}, dtype=float) for values in (now, former)]
    assert tables[0] is not None
    return histograms(tables[0], tables[1], LIMITS)["brightness"]


def test_every_photo_is_counted_in_its_bin():
    found = histogram([0.0, 0.5, 1.0, 1.0])
    assert (found["edges"][0], found["edges"][-1], len(found["edges"])) == (0.0, 1.0, 31)
    assert (found["now"][0], found["now"][15], found["now"][29], sum(found["now"])) == (1, 1, 2, 4)


def test_a_photo_that_was_not_measured_is_not_counted():
    assert sum(histogram([0.0, float("nan"), 1.0])["now"]) == 2


def test_both_sets_of_photos_are_counted_in_the_same_bins():
    found = histogram([0.0, 1.0], [3.0])
    assert (found["edges"][-1], sum(found["now"]), found["in_production"][29]) == (3.0, 2, 1)


def test_without_a_model_in_production_there_are_no_counts_of_its_photos():
    assert histogram([0.0, 1.0])["in_production"] is None


def test_what_ranges_over_powers_of_ten_has_logarithmic_bins():
    found = histogram([1.0, 1000.0])
    assert found["is_logarithmic"]
    assert np.diff(np.log(found["edges"])) == pytest.approx(np.log(1000) / 30)


def test_photos_that_are_all_alike_are_one_bar_in_the_middle():
    assert np.flatnonzero(histogram([5.0, 5.0])["now"]).tolist() == [15]


def test_without_photos_there_are_no_bins():
    assert (histogram([])["edges"], histogram([], [])["now"]) == ([], [])


def test_the_limits_stand_beside_the_counts_and_all_of_it_is_json():
    found = json.loads(json.dumps(histogram([0.1, 0.9], [0.5])))
    assert (found["lowest"], found["highest"]) == (0.05, 0.95)
