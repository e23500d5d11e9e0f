"""What lies on the disk in files of ours comes back as it was written, or is named as damaged: nothing else, ever."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from regraft.core import sealed
from regraft.core.errors import Damaged, RegraftError
from regraft.core.files import read_json
from regraft.features.table import read_features, write_features
from regraft.photos.dataset import Dataset, read_dataset, write_dataset
from regraft.training.training_loop import Checkpoint

DIGESTS = [f"{number:064x}" for number in range(4)]
HOSTILE = ["seal:" + "0" * 32, "seal:" + "f" * 32, "<script>", "=1+1"]


def dataset() -> Dataset:
    """Four images of two classes."""
    names = HOSTILE[:2]
    rows = pd.DataFrame({"digest": DIGESTS, "path": [*HOSTILE]})
    rows["class_name"], rows["class_index"] = names * 2, np.array([0, 1] * 2, np.int32)
    rows["split"], rows["format"] = ["train", "val", "test", "train"], "PNG"
    return Dataset(rows, names, Path("raw"))


@dataclass(frozen=True)
class Source:
    """Features that follow from the view."""

    namespace: str = "features-1"
    feature_dim: int = 5
    augmented_views: int = 1

    @property
    def views(self) -> "Source":
        return self

    def key(self, source: str, view: int) -> bytes:
        return bytes.fromhex(source) + view.to_bytes(2, "big")

    def read_features(self, sources: Sequence[Any], view: int) -> np.ndarray:
        return np.full((len(sources), 5), view, np.float32)


ARRAYS = {"a": np.arange(7), "b": np.float32(3.5), "c": np.zeros((0, 2))}
KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "features": (
        lambda path: write_features(path, Source(), dataset()),
        lambda path: read_features(path).read(np.arange(8)),
    ),
    "dataset": (lambda path: write_dataset(path, dataset()), lambda path: read_dataset(path, Path())),
    "checkpoint": (
        lambda path: Checkpoint(path).write(ARRAYS),
        lambda path: list((Checkpoint(path).read() or {"absent": None}).items()),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_or_a_missing_end_is_damage_wherever_it_is(tmp_path, kind):
    """Of small files at every length and in every byte."""
    write, read = KINDS[kind]
    path = tmp_path / "file"
    write(path)
    good = path.read_bytes()
    damaged = 0
    places = range(0, len(good), 1 + len(good) // 1500)
    for place in places:
        flipped = bytearray(good)
        flipped[place] ^= 1 << (place * 5 % 8)
        for bad in (bytes(flipped), good[:place]):
            path.write_bytes(bad)
            try:
                found = read(path)
            except RegraftError as error:
                damaged += str(path) in str(error)
                continue
            assert kind == "checkpoint"
            assert found == [("absent", None)]
            damaged += 1
    assert damaged > 1.9 * len(places)


def test_json_that_was_damaged_is_read_or_named(tmp_path):
    good, path = b'{"a": [1, {"b": "c"}], "val": {"accuracy": 0.5}}', tmp_path / "file"
    for place in range(len(good)):
        for bad in (good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :], good[:place]):
            path.write_bytes(bad)
            with suppress(Damaged):
                read_json(path, "a")


def test_what_is_left_out_changes_nothing_of_the_rest_and_damage_to_it_is_found(tmp_path):
    file, columns = tmp_path / "a.parquet", {"a": "str", "b": "int64", "c": "Int64"}
    whole = pd.DataFrame({"a": HOSTILE, "b": range(4), "c": [None, 1, 2, 3]}).astype(columns)
    sealed.write_table(file, whole)
    pd.testing.assert_frame_equal(sealed.read_frame(file, columns, leave_out=["b"]), whole[["a", "c"]])
    contents = file.read_bytes()
    for place in range(len(contents)):
        file.write_bytes(contents[:place] + bytes([contents[place] ^ 1]) + contents[place + 1 :])
        with pytest.raises(Damaged):
            sealed.read_frame(file, columns, leave_out=["b"])


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ({"class_index": [9] * 4}, None),
        ({}, ["only one"]),
    ],
    ids=range(2),
)
def test_a_sealed_table_of_another_kind_is_damaged_too(tmp_path, rows, names):
    good = dataset()
    other = good.rows.assign(**rows)
    other.attrs = {"class_names": good.class_names if names is None else names}
    sealed.write_table(tmp_path / "a.parquet", other)
    with pytest.raises(Damaged, match=r"a\.parquet is damaged"):
        read_dataset(tmp_path / "a.parquet", Path())
