import numpy as np
import pandas as pd
import pytest

from regraft.core.statistics import wilson
from regraft.training.parts import (
    BETTER,
    FEW,
    WORSE,
    class_table,
    read_classes,
    read_slices,
    share_right,
    slice_table,
    write_parts,
)


def alone(count: int) -> np.ndarray:
    """Groups of one photo each."""
    return np.arange(count).astype(str)


def of_slices(random: np.random.Generator, count: int, values: int) -> pd.DataFrame:
    return pd.DataFrame({"camera": random.integers(0, values, count).astype(str)})


def test_a_share_has_wilsons_interval():
    assert share_right(np.arange(100) < 90, alone(100)) == wilson(90, 100)
    assert share_right(np.zeros(0, bool), alone(0)).high == 1


def test_near_duplicates_make_an_interval_wider_and_leave_the_share_as_it_is():
    right = np.arange(100) < 90
    pairs = share_right(right, (np.arange(100) // 2).astype(str))
    assert (pairs.value, pairs.low, pairs.high) == (0.9, wilson(45, 50).low, wilson(45, 50).high)


def test_a_class_with_few_photos_is_not_the_worst_by_chance_and_looks_uncertain():
    classes = np.repeat([0, 1, 2], [50, 2, 50])
    right = np.concatenate([np.arange(50) < 48, [False, False], np.arange(50) < 20])
    table = class_table(["good", "few", "bad", "none"], classes, right, alone(102)).set_index("class_name")
    assert list(table.index) == ["bad", "few", "good", "none"]
    assert table.recall[:3].tolist() == [0.4, 0.0, 0.96]
    assert (table.note == FEW).tolist() == [False, True, False, True]
    assert table.high["few"] - table.low["few"] > 0.6
    assert (table.images["none"], np.isnan(table.recall["none"])) == (0, True)


@pytest.mark.parametrize(("accuracy", "note"), [(0.6, WORSE), (1.0, BETTER), (0.9, "")])
def test_a_slice_is_marked_where_it_differs_from_the_rest_by_more_than_chance(accuracy, note):
    slices = pd.DataFrame({"light": ["night"] * 100 + ["day"] * 300})
    right = np.concatenate([np.arange(100) < 100 * accuracy, np.arange(300) < 265])
    table = slice_table(slices, right, alone(400)).set_index("value")
    assert table.note["night"] == note
    assert (table.images["night"], table.accuracy["night"]) == (100, accuracy)


def test_of_many_slices_that_do_not_differ_one_is_marked_in_at_most_five_runs_of_a_hundred():
    random, runs, marked = np.random.default_rng(0), 30, 0
    for _ in range(runs):
        table = slice_table(of_slices(random, 400, 12), random.random(400) < 0.9, alone(400))
        marked += table.note.isin([WORSE, BETTER]).any()
    assert marked / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


def test_photos_of_one_group_are_one_piece_of_evidence():
    slices = pd.DataFrame({"light": ["night"] * 40 + ["day"] * 100})
    right = np.concatenate([np.zeros(40, bool), np.ones(100, bool)])
    groups = np.concatenate([np.zeros(40, int), np.arange(1, 101)]).astype(str)
    assert slice_table(slices, right, alone(140)).note.tolist() == [WORSE, BETTER]
    assert slice_table(slices, right, groups).set_index("value").note["night"] == FEW


def test_photos_without_a_value_are_a_part_of_their_own():
    slices = pd.DataFrame({"camera": ["a", None, "a", np.nan]})
    table = slice_table(slices, np.ones(4, bool), alone(4))
    assert dict(zip(table.value, table.images, strict=True)) == {"a": 2, "": 2}


def test_without_slices_the_table_is_empty(tmp_path):
    write_parts(tmp_path / "slices.csv", slice_table(pd.DataFrame(index=range(4)), np.ones(4, bool), alone(4)))
    assert read_slices(tmp_path / "slices.csv").empty


def test_tables_are_read_as_they_were_written(tmp_path):
    slices = pd.DataFrame({"=camera": ["007", "NA", None, "<b>"]})
    table = slice_table(slices, np.array([True, False, True, True]), alone(4))
    write_parts(tmp_path / "slices.csv", table)
    assert read_slices(tmp_path / "slices.csv").value.tolist() == table.value.tolist()
    classes = class_table(["NA", "x"], np.zeros(4, int), np.ones(4, bool), alone(4))
    write_parts(tmp_path / "classes.csv", classes)
    assert read_classes(tmp_path / "classes.csv").class_name.tolist() == ["NA", "x"]
