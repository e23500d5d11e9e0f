"""New photos judge the models before."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regraft.production.new_photos import (
    COLUMNS,
    Evidence,
    answered,
    read_answers,
    select_new,
    write_answers,
)
from regraft.production.training_data import Seen
from tests.support.gate import dataset_of, groups_of, reference_of

PHOTOS = dataset_of(["cup", "hat", "shoe", "cup", "hat", "shoe"], ["train", "val", "test"] * 2)
NOTHING = pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)
PAIR = ("a" * 64, "b" * 64)


def rows_of(right: list[bool], before: list[bool]) -> pd.DataFrame:
    photos = PHOTOS.with_rows(PHOTOS.rows.head(len(right)))
    return answered(photos, groups_of({}), PAIR, (np.array(right), np.array(before)))


def numbers(dataset) -> list[int]:
    return [int(digest, 16) for digest in dataset.rows.digest]


def test_new_is_what_neither_model_was_trained_on_whatever_its_split() -> None:
    references = [reference_of([(0, "cup", "train")]), reference_of([(0, "cup", "train"), (4, "hat", "test")])]
    assert numbers(select_new(PHOTOS, groups_of({}), references, NOTHING)) == [1, 2, 3, 5]


def test_near_duplicates_of_known_photos_are_not_new_and_of_new_ones_one_counts() -> None:
    groups = groups_of({0: 0, 1: 0, 2: 2, 3: 2, 4: 4, 5: 5})
    assert numbers(select_new(PHOTOS, groups, [reference_of([(0, "cup", "train")])], NOTHING)) == [2, 4, 5]


def test_a_photo_counts_once_and_so_does_its_group() -> None:
    scored = rows_of([True], [False])
    assert numbers(select_new(PHOTOS, groups_of({0: 0, 3: 0}), [], scored)) == [1, 2, 4, 5]


def test_a_photo_of_a_patient_whom_a_model_knows_is_not_new_though_the_older_photos_are_gone() -> None:
    known = hashlib.sha256(b"patient 7").hexdigest()
    rows = reference_of([(90, "cup", "train")]).rows.assign(given_group=known)
    of_rows = replace(reference_of([(90, "cup", "train")]), rows=rows)
    of_base = replace(reference_of([(91, "hat", "train")]), base_saw=Seen(given=frozenset({known})))
    given = groups_of({number: number for number in range(6)}).assign(
        given_group=[None, "patient 7", "8", None, "7", "8"]
    )
    for reference in (of_rows, of_base):
        assert numbers(select_new(PHOTOS, given, [reference], NOTHING)) == [0, 2, 3, 4, 5]


def test_photos_accumulate_into_evidence_that_may_advise_a_rollback(tmp_path: Path) -> None:
    rows = rows_of([False] * 5 + [True], [True] * 5 + [True])
    write_answers(tmp_path, rows)
    found = Evidence.of(read_answers(tmp_path), PAIR[1])
    assert (found.photos, found.b, found.c) == (6, 5, 0)
    assert not found.is_alarm
    assert "5 are named rightly only by it, 0 only by what was in production" in found.words
    assert Evidence(30, 8, 0, PAIR[1]).is_alarm
    assert Evidence(30, 8, 0, PAIR[1]).words.endswith(f"`regraft promote --rollback --to {PAIR[1][:12]}` is advised.")


def test_one_photo_after_another_is_a_fair_bet_whichever_models_are_in_production() -> None:
    """If production is never worse, an alarm is as rare as promised, although models come and go by what was seen."""
    random, alarms = np.random.default_rng(0), 0
    for _ in range(400):
        b = c = 0
        for _ in range(150):
            share = 0.5 if b > c else 0.3  # of photos that only the anchor names rightly: no better model after a loss
            b, c = (b + 1, c) if random.random() < share else (b, c + 1)
            if Evidence(b + c, b, c, PAIR[1]).is_alarm:
                alarms += 1
                break
    assert alarms / 400 < 0.05


def test_a_damaged_record_is_set_aside_and_a_new_one_begins(tmp_path: Path) -> None:
    write_answers(tmp_path, rows_of([False], [True]))
    path = tmp_path / "new_photos.parquet"
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    assert len(read_answers(tmp_path)) == 0
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [bytes(contents)]


@pytest.mark.parametrize(("b", "c"), [(5000, 0), (10, 10)])
def test_figures_are_such_that_json_can_hold(b: int, c: int) -> None:
    found = Evidence(b + c, b, c, PAIR[1]).figures()["e_value"]
    assert found is None or 0 < found < 20
