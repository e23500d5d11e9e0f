from typing import Any

import numpy as np
import pandas as pd
import pytest

from regraft.validation.drift import (
    STATISTICS,
    class_weights,
    drift_tables,
    effective_number,
    histograms,
    population_stability_index,
    psi_by_chance,
)

MAX_PSI = 0.25


def photos(seed: int, count: int, *, shares: Any = (0.25,) * 4, **changes: float) -> pd.DataFrame:
    """Used rows of a manifest; `brightness=0.5` makes the photos half as bright."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "digest": [f"{seed}-{number}" for number in range(count)],
            "label": random.choice([f"class {number}" for number in range(len(shares))], count, p=shares),
            "width": random.choice([640, 640, 640, 480, 600], count),
            "height": random.choice([480, 480, 640], count),
            "brightness": random.beta(6, 6, count),
            "contrast": random.uniform(0.1, 0.4, count),
            "sharpness": random.gamma(2, 300, count),
            "entropy": 8 * random.beta(8, 2, count),
        }
    )
    return table.assign(group=table.digest, **{name: table[name] * factor for name, factor in changes.items()})


def drift_table(then: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Against the model in production alone; what is kept of its photos has no groups."""
    return drift_tables({"production": then.drop(columns="group")}, now)


def moved(then: pd.DataFrame, now: pd.DataFrame) -> set[tuple[str, str]]:
    table = drift_table(then, now)
    return {(row.photos, row.quantity) for row in table.itertuples() if row.psi > row.limit}


def test_an_unchanged_folder_has_not_moved_at_all():
    then = photos(0, 500)
    table = drift_table(then, then.sample(frac=1, random_state=0))
    assert table.quantity.tolist() == ["class shares", *STATISTICS]
    assert set(table.photos) == {"all"}
    assert set(table.psi) == {0.0}


def test_batches_of_the_same_kind_are_not_taken_for_drift():
    """Of 100 random draws, of 20 to 600 photos that join 150 to 1,200, at most one may be a false alarm."""
    random, alarms = np.random.default_rng(0), 0
    for draw in range(100):
        then = photos(2 * draw, int(random.integers(150, 1200)), shares=(0.5, 0.3, 0.15, 0.05))
        joined = photos(2 * draw + 1, int(random.integers(20, 600)), shares=(0.5, 0.3, 0.15, 0.05))
        alarms += bool(moved(then, pd.concat([then, joined])))
    assert alarms <= 1


def test_the_limit_of_chance_is_exceeded_once_in_a_thousand_times():
    """Without the limit of params.yaml: of 4,000 draws 4 are expected, and more than 12 once in 4,000 times."""
    random = np.random.default_rng(1)
    then, now = random.multinomial(2000, [0.1] * 10, 4000), random.multinomial(500, [0.1] * 10, 4000)
    limit = psi_by_chance(10, 2000, 500)
    assert sum(population_stability_index(*pair) > limit for pair in zip(then, now, strict=True)) <= 12


@pytest.mark.parametrize("quantity", ["brightness", "contrast", "sharpness"])
def test_a_batch_that_halves_a_figure_is_found_among_what_joined_and_vanishes_among_all(quantity):
    then, halved = photos(0, 3000), {quantity: 0.5}
    assert moved(then, pd.concat([then, photos(1, 60, **halved)])) == {("joined", quantity)}


@pytest.mark.parametrize(("before", "after"), [((640, 480), (64, 48)), ((640, 480), (1280, 960))])
def test_photos_of_one_size_that_become_of_another_are_found(before, after):
    then, now = photos(0, 100), photos(1, 100)
    table = drift_table(then.assign(width=before[0], height=before[1]), now.assign(width=after[0], height=after[1]))
    found = table[(table.photos == "all") & (table.psi > table.limit)]
    assert found.quantity.tolist() == ["shorter_side"]
    then_and_now = [", ".join([f"{size[1]:.3g}"] * 3) for size in (before, after)]
    assert found.words.tolist() == ["10, 50, 90 % below " + " -> ".join(then_and_now)]


def test_a_class_that_has_more_than_tripled_is_found_and_told():
    then = photos(0, 1000, shares=(0.5, 0.4, 0.1))
    now = pd.concat([then, photos(1, 400, shares=(0, 0, 1))])
    (row,) = drift_table(then, now).query("quantity == 'class shares' and photos == 'all'").itertuples()
    assert row.psi > row.limit
    assert row.words.startswith("class 2 10% -> 35%, class 0 ")


def test_new_and_vanished_classes_do_not_count_as_moved_shares():
    then = photos(0, 600, shares=(0.4, 0.4, 0.2))
    now = photos(1, 600, shares=(0.4, 0.4, 0, 0.2))
    assert moved(then, now) == set()


def test_photos_are_compared_with_former_ones_of_their_class():
    then = photos(0, 2000)
    then.loc[then.label == "class 1", "brightness"] *= 0.4  # what it shows is dark
    joined = photos(1, 60).assign(label="class 1")
    darker = joined.assign(brightness=joined.brightness * 0.4)
    assert moved(then, pd.concat([then, darker])) == {("joined", "class shares")}
    assert moved(then, pd.concat([then, joined])) == {("joined", "class shares"), ("joined", "brightness")}


def test_a_burst_counts_once():
    then = photos(0, 2000)
    dark = photos(1, 60, brightness=0.2)
    assert ("joined", "brightness") in moved(then, pd.concat([then, dark]))
    assert moved(then, pd.concat([then, dark.assign(group="burst")])) == set()


def test_a_near_duplicate_of_a_photo_that_was_there_has_not_joined():
    then = photos(0, 2000)
    dark = photos(1, 60, brightness=0.2).assign(group=then.group[:60].to_numpy())
    assert ("joined", "brightness") not in moved(then, pd.concat([then, dark]))


def test_what_moves_a_little_every_night_is_found_against_the_anchor_alone():
    folder = anchor = photos(0, 600)
    for night in range(1, 25):
        former, folder = folder, pd.concat([folder, photos(night, 30, brightness=0.985**night)])
        if night % 8:
            continue
        table = drift_tables({"production": former, "anchor": anchor}, folder)
        found = table[table.psi > table.limit]
        assert set(found.against) <= {"anchor"}
    assert set(zip(found.photos, found.quantity, strict=True)) == {("joined", "brightness")}


def test_two_references_share_the_chance_of_a_false_alarm():
    then, now = photos(0, 600), pd.concat([photos(0, 600), photos(1, 100)])
    one = drift_tables({"production": then}, now)
    two = drift_tables({"production": then, "anchor": then}, now)
    assert len(two) == 2 * len(one)
    assert (two.limit[: len(one)] >= one.limit).all()
    assert two.limit.max() > one.limit.max()


def test_weights_give_classes_the_shares_that_they_have_now():
    then, now = np.array(["a"] * 6 + ["b"] * 2 + ["c"]), np.array(["a", "b", "b", "b"])
    weights = class_weights(then, now)
    assert weights[then == "a"].sum() / weights.sum() == pytest.approx(0.25)
    assert weights[then == "c"].tolist() == [0]
    assert weights.sum() == pytest.approx(9)
    assert effective_number(np.ones(7)) == 7
    assert effective_number(weights) < 4
    assert class_weights(then, np.array(["d"])).tolist() == [0] * 9


def test_figures_that_are_zero_for_most_photos_are_compared():
    then = photos(0, 200).assign(sharpness=0.0)
    assert moved(then, then) == set()
    assert ("all", "sharpness") in moved(then, photos(1, 200))


@pytest.mark.parametrize(("count", "judged"), [(19, {"all"}), (20, {"all", "joined"})])
def test_fewer_than_twenty_photos_that_joined_are_not_judged(count, judged):
    then = photos(0, 200)
    table = drift_table(then, pd.concat([then, photos(1, count, brightness=0.1)]))
    assert set(table.photos) == judged


def test_the_index_of_many_photos_is_that_of_the_literature():
    """0.1 ln 1/2 twice and so on: (0.2 - 0.1) ln 2 + (0.8 - 0.9) ln 8/9."""
    psi = population_stability_index(np.array([100_000, 900_000]), np.array([200_000, 800_000]))
    assert psi == pytest.approx(0.1 * np.log(2) - 0.1 * np.log(8 / 9), abs=1e-4)


# Histograms.


def histogram(now: list[float], former: list[float] | None = None) -> dict:
    tables = [None if values is None else pd.DataFrame({"brightness": values}, dtype=float) for values in (now, former)]
    assert tables[0] is not None
    return histograms(tables[0], tables[1], {"brightness": (0.05, 0.95)})["brightness"]


def test_every_photo_is_counted_in_its_bin():
    found = histogram([0.0, 0.5, 1.0, 1.0])
    assert (found["edges"][0], found["edges"][-1], len(found["edges"])) == (0.0, 1.0, 31)
    assert (found["now"][0], found["now"][15], found["now"][29], sum(found["now"])) == (1, 1, 2, 4)


def test_both_sets_of_photos_are_counted_in_the_same_bins():
    found = histogram([0.0, 1.0], [3.0])
    assert (found["edges"][-1], sum(found["now"]), found["in_production"][29]) == (3.0, 2, 1)


def test_what_ranges_over_powers_of_ten_has_logarithmic_bins():
    found = histogram([1.0, 1000.0])
    assert found["is_logarithmic"]
    assert np.diff(np.log(found["edges"])) == pytest.approx(np.log(1000) / 30)


def test_photos_that_are_all_alike_are_one_bar_in_the_middle():
    assert np.flatnonzero(histogram([5.0, 5.0])["now"]).tolist() == [15]


def test_without_photos_there_are_no_bins():
    assert (histogram([])["edges"], histogram([], [])["now"]) == ([], [])
