"""The history of runs: rows are added, whatever lies where the file belongs."""

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from regraft.core.errors import Busy, Damaged
from regraft.production.run_history import FILE, PHOTOS, Changes, Row, add_rows, note_photos, read_rows

NIGHT = datetime(2026, 11, 26, 3, 0, 0, 123456, tzinfo=UTC)
FULL = Row(
    run="20261126T030000-0a1b2c",
    started=NIGHT,
    name="Promoted",
    ended=NIGHT + timedelta(minutes=3),
    started_by="retrain-nightly",
    reason="Promoted: first model",
    accuracy=0.93,
    photos=1000,
    new=12,
    seconds={"validate_data": 1.5, "fine_tune": 120.0},
    model="a" * 64,
    champion="a" * 64,
    drift=0.4,
    drift_warned=False,
)


def test_a_row_comes_back_as_it_was(tmp_path: Path) -> None:
    crashed = Row(run="r", started=NIGHT - timedelta(days=1), name="Crashed")
    assert add_rows(tmp_path, [FULL]) == ""
    add_rows(tmp_path, [crashed])
    assert read_rows(tmp_path) == [crashed, FULL]
    assert read_rows(tmp_path, last=1) == [crashed]


def test_the_last_run_is_the_last_one_also_where_the_clock_was_set_back(tmp_path: Path) -> None:
    hours = {"first": 3, "after the clock": 2, "killed before both": 1}
    for run, hour in hours.items():
        name = "Crashed" if "killed" in run else "Promoted"
        add_rows(tmp_path, [Row(run=run, started=NIGHT.replace(hour=hour), name=name)])
    assert [row.run for row in read_rows(tmp_path)] == ["killed before both", "first", "after the clock"]


def test_a_file_of_an_older_form_is_read_and_an_unknown_column_is_kept(tmp_path: Path) -> None:
    columns = {"run": ["old"], "started": [NIGHT - timedelta(days=9)], "name": ["Promoted"], "photos": [5.0]}
    pq.write_table(pa.table({**columns, "of_later": ["x"]}), tmp_path / FILE)
    add_rows(tmp_path, [FULL])
    old, new = read_rows(tmp_path)
    assert (old.run, old.photos, old.accuracy, old.seconds) == ("old", 5, None, {})
    assert new == FULL
    assert pq.read_table(tmp_path / FILE)["of_later"].to_pylist() == ["x", None]


def flipped(contents: bytes) -> bytes:
    at = contents.index(b"retrain-nightly") + 3
    return contents[:at] + bytes([contents[at] ^ 1]) + contents[at + 1 :]


@pytest.mark.parametrize("kind", ["text", "half", "foreign", "flipped", "folder", "link", "pipe"])
def test_what_is_no_history_is_put_aside_and_a_new_one_begins(tmp_path: Path, kind: str) -> None:
    path = tmp_path / FILE
    add_rows(tmp_path, [FULL])
    contents = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "foreign":
        pq.write_table(pa.table({"run": [1.5], "started": ["yesterday"], "name": ["x"]}), path)
    else:
        path.write_bytes({"text": b"hello", "half": contents[: len(contents) // 2], "flipped": flipped(contents)}[kind])
    with pytest.raises(Damaged):
        read_rows(tmp_path)
    assert "set aside as history.damaged-" in add_rows(tmp_path, [FULL])
    assert read_rows(tmp_path) == [FULL]
    assert len(list(tmp_path.glob("history.damaged-*.parquet"))) == 1


def test_what_a_run_says_of_itself_counts_more_than_that_it_crashed(tmp_path: Path) -> None:
    crashed = Row(run=FULL.run, started=NIGHT, name="Crashed")
    for row in (crashed, FULL, crashed):
        add_rows(tmp_path, [row])
    assert read_rows(tmp_path) == [FULL]


def test_a_row_of_nobody_and_a_figure_that_is_none_do_no_harm(tmp_path: Path) -> None:
    add_rows(tmp_path, [FULL])
    table = pq.read_table(tmp_path / FILE)
    nobody = pa.Table.from_pylist([{"run": None, "started": NIGHT, "name": "x"}], table.schema)
    odd = pa.Table.from_pylist([{"run": "odd", "started": NIGHT, "name": "x", "accuracy": float("nan")}], table.schema)
    pq.write_table(pa.concat_tables([table, nobody, odd]), tmp_path / FILE)
    assert [(row.run, row.accuracy) for row in read_rows(tmp_path)] == [(FULL.run, 0.93), ("odd", None)]


def test_another_one_who_changes_production_is_waited_for(tmp_path: Path) -> None:
    with FileLock(tmp_path / "production.lock"), pytest.raises(Busy):
        add_rows(tmp_path, [FULL], patience=0.05)


def test_production_has_the_accuracy_of_whichever_model_is_in_it() -> None:
    assert FULL.is_promoted
    assert FULL.production == (0.93, 0.93, 0.93)
    refused = replace(FULL, name="Refused", champion="b" * 64, champion_accuracy=0.95, champion_low=0.9)
    assert not refused.is_promoted
    assert refused.production == (0.95, 0.9, 0.95)


def write(path: Path, photos: dict[str, str]) -> Path:
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in photos]
    pd.DataFrame({"digest": digests, "class_name": list(photos.values()), "split": "train"}).to_parquet(path)
    return path


def test_what_joined_left_and_changed_its_class_is_counted(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset.parquet"
    assert note_photos(tmp_path, write(dataset, {"a": "cat", "b": "dog", "c": "dog"})) is None
    assert note_photos(tmp_path, dataset) == Changes(0, 0, 0)
    now = {"d": "cat", "a": "dog", "b": "dog", "e": "elk"}
    assert note_photos(tmp_path, write(dataset, now)) == Changes(new=2, gone=1, relabelled=1)
    assert note_photos(tmp_path, write(dataset, {"e": "elk"})) == Changes(new=0, gone=3, relabelled=0)
    assert note_photos(tmp_path, write(dataset, {"f": "elk"})) == Changes(new=1, gone=1, relabelled=0)


@pytest.mark.parametrize("contents", [b"", b"PAR1 nonsense PAR1"])
def test_a_damaged_note_or_data_set_tells_nothing(tmp_path: Path, contents: bytes) -> None:
    dataset = write(tmp_path / "dataset.parquet", {"a": "cat"})
    note_photos(tmp_path, dataset)
    (tmp_path / PHOTOS).write_bytes(contents)
    assert note_photos(tmp_path, write(dataset, {"b": "cat"})) is None
    assert note_photos(tmp_path, write(dataset, {"c": "cat"})) == Changes(1, 1, 0)
    dataset.write_bytes(contents)
    assert note_photos(tmp_path, dataset) is None
