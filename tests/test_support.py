"""What tests and benchmarks share: which photos they use and make, and how a run's time is split."""

import os
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from regraft.photos.decoder import inspect
from tests.support.photos import hold_back, make_photos, spread
from tests.support.pipeline import Ended, FlowRun, Step, run

SIZES = {("train", 0): 60, ("train", 1): 5, ("train", 2): 1, ("val", 0): 20, ("val", 1): 2, ("test", 0): 30}


@pytest.fixture
def rows() -> pd.DataFrame:
    """Photos of three classes, in groups of very different size."""
    groups = [(split, class_index) for (split, class_index), size in SIZES.items() for _ in range(size)]
    digests = [f"{number * 7919 % 100_003:064x}" for number in range(len(groups))]
    splits, class_indexes = zip(*groups, strict=True)
    return pd.DataFrame({"digest": digests, "split": splits, "class_index": class_indexes})


def test_photos_that_are_made_are_all_different_and_can_be_read(tmp_path: Path):
    Image.new("RGB", (28, 28), "red").save(tmp_path / "plain.png")  # every crop of it of one size is the same picture
    Image.new("L", (3, 1)).save(tmp_path / "tiny.png")
    paths = [str(tmp_path / name) for name in ("plain.png", "tiny.png")]
    sources = pd.DataFrame({"path": paths, "class_index": [0, 1]})
    make_photos(sources, tmp_path / "made", range(40))
    made = list((tmp_path / "made").rglob("*.jpg"))
    assert {path.parent.name for path in made} == {"000", "001"}
    assert len({path.read_bytes() for path in made}) == 40
    assert [inspect(path, max_pixels=1000).problem for path in made] == [None] * 40


def test_the_same_number_makes_the_same_photo_and_another_run_goes_on(tmp_path: Path):
    Image.effect_noise((60, 40), 50).save(tmp_path / "noise.png")
    sources = pd.DataFrame({"path": [str(tmp_path / "noise.png")], "class_index": [0]})
    make_photos(sources, tmp_path / "at once", range(6))
    for numbers in (range(4), range(4, 6)):
        make_photos(sources, tmp_path / "in two", numbers)
    at_once, in_two = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "000").iterdir()} for name in ("at once", "in two")
    )
    assert at_once == in_two


def test_the_beginning_of_the_photos_has_every_class_in_every_split(rows: pd.DataFrame):
    beginning = spread(rows.sample(frac=1, random_state=1)).head(len(SIZES))
    assert set(zip(beginning.split, beginning.class_index, strict=True)) == set(SIZES)


def test_half_of_the_photos_has_half_of_every_class_in_every_split(rows: pd.DataFrame):
    half = spread(rows).head(len(rows) // 2)
    counts = half.groupby(["split", "class_index"]).size().to_dict()
    assert all(abs(counts[group] - size / 2) <= 1 for group, size in SIZES.items())


def test_photos_held_back_leave_every_class_and_none_is_drawn_twice(rows: pd.DataFrame):
    train = rows[rows.split == "train"]
    rounds = hold_back(train, rounds=5, share=0.125)
    drawn = pd.concat(rounds)
    assert [len(joining) for joining in rounds] == [8] * 5
    assert drawn.index.is_unique
    assert set(train.drop(index=drawn.index).class_index) == {0, 1, 2}


def test_the_parts_of_a_run_add_up_to_its_seconds():
    run = FlowRun(
        Ended(0, 0.0, 10.0, 500.0), 3.0, {"record_data": Step(0.5, "Recorded"), "evaluate": Step(4.0, "Ran")}, 1.0
    )
    assert run.parts["between tasks"] == pytest.approx(1.5)
    assert sum(run.parts.values()) == pytest.approx(10.0)


def test_the_peak_memory_of_a_process_is_its_own_and_not_that_of_the_one_that_measures(tmp_path: Path):
    held = bytearray(os.urandom(1)) * 300_000_000  # pages that are written to count
    peaks = {}
    for megabytes in (1, 150):
        code = f"held = bytearray(b'x') * {megabytes} * 1_000_000"
        peaks[megabytes] = run([sys.executable, "-S", "-c", code], tmp_path, dict(os.environ)).peak_memory_mb
    assert len(held) == 300_000_000
    assert peaks[1] < 100  # an interpreter and little else
    assert peaks[150] - peaks[1] == pytest.approx(149, abs=20)


def test_a_command_that_fails_ends_what_started_it_with_what_it_said(tmp_path: Path):
    command = [sys.executable, "-S", "-c", "print('the disk is full'); raise SystemExit(3)"]
    with pytest.raises(SystemExit, match=r"status 3:\nthe disk is full"):
        run(command, tmp_path, dict(os.environ), log=tmp_path / "log")
