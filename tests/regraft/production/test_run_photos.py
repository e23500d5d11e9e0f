"""What became of photos since the run before."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from regraft.production.run_photos import FILE, Changes, note_photos


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
    (tmp_path / FILE).write_bytes(contents)
    assert note_photos(tmp_path, write(dataset, {"b": "cat"})) is None
    assert note_photos(tmp_path, write(dataset, {"c": "cat"})) == Changes(1, 1, 0)
    dataset.write_bytes(contents)
    assert note_photos(tmp_path, dataset) is None
