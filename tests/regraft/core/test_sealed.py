"""What lies on the disk in files of ours comes back as it was written, or is named as damaged: nothing else, ever."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regraft.core import sealed
from regraft.core.errors import Damaged, RegraftError
from regraft.core.files import read_json
from regraft.features.table import FileRows, OpenFile, read_features, write_features
from regraft.photos.dataset import Dataset, read_dataset, write_dataset
from regraft.photos.manifest import COLUMNS, read_manifest, write_manifest
from regraft.production.training_data import Reference, read_reference, write_reference
from regraft.training.metrics import read_curve
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
    """Features that follow from digest and view."""

    namespace: str = "features-1"
    feature_dim: int = 5
    augmented_views: int = 1

    @property
    def views(self) -> "Source":
        return self

    def key(self, source: str, view: int) -> bytes:
        return bytes.fromhex(source) + view.to_bytes(2, "big")

    def read_features(self, sources: Sequence[Any], view: int) -> np.ndarray:
        return np.array([np.arange(5) + int(digest, 16) + 100 * view for digest in DIGESTS[: len(sources)]], np.float32)

    def checksums(self, sources: Sequence[Any], view: int) -> np.ndarray:
        return np.arange(len(sources), dtype=np.uint64) + view


def write_all_features(path: Path) -> None:
    write_features(path, Source(), dataset())


def all_features(path: Path) -> list[Any]:
    features = read_features(path)
    values = features.read(np.arange(len(features.digests)))
    return [
        list(features.digests),
        features.views,
        features.splits,
        features.class_indices,
        features.class_names,
        values,
    ]


def all_names(path: Path) -> list[Any]:
    found: list[Any] = []
    features = read_features(
        path, find_rows=lambda *facts: found.extend(facts) or FileRows(OpenFile(path), np.arange(8), 5)
    )
    return [*found, list(features.digests), features.views, features.splits, features.class_names]


def manifest() -> pd.DataFrame:
    rows = pd.DataFrame({name: [None] * 3 for name in COLUMNS})
    rows["path"], rows["label"], rows["verdict"] = ["a", "b", HOSTILE[0]], "c", "use"
    rows["bytes"], rows["conflict"] = 7, False
    return rows.astype(COLUMNS)


def reference() -> Reference:
    rows = manifest()[["digest", "label", "split", "width", "height", "brightness", "contrast", "sharpness", "entropy"]]
    return Reference(rows.assign(sampled=[True, False, True]), np.arange(6, dtype=np.float32).reshape(2, 3), "name")


ARRAYS = {"a": np.arange(7), "b": np.float32(3.5), "c": np.zeros((0, 2))}
KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "features": (write_all_features, all_features),
    "named features": (lambda path: write_features(path, Source(), dataset(), is_named=True), all_names),
    "dataset": (
        lambda path: write_dataset(path, dataset()),
        lambda path: [read_dataset(path, Path()).rows, read_dataset(path, Path()).class_names],
    ),
    "manifest": (lambda path: write_manifest(path, "classes", manifest()), lambda path: [*read_manifest(path)]),
    "reference": (
        lambda path: write_reference(path, reference()),
        lambda path: [read_reference(path).rows, read_reference(path).features, read_reference(path).namespace],
    ),
    "checkpoint": (
        lambda path: Checkpoint(path).write(ARRAYS),
        lambda path: list((Checkpoint(path).read() or {"absent": None}).items()),
    ),
}
_CURVE = b"epoch,train_loss,val_log_loss,val_accuracy,val_balanced_log_loss,val_macro_recall\n"
_CURVE += b"0,,1.5,0.25,1.5,0.25\n1,1.25,0.5,0.75,0.5,0.75\n"
READERS: dict[str, tuple[bytes, Callable[[Path], Any]]] = {
    "json": (json.dumps({"a": [1, {"b": "c"}], "val": {"accuracy": 0.5}}).encode(), lambda path: read_json(path, "a")),
    "curve": (_CURVE, read_curve),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, pd.DataFrame):
        return one.equals(other) and one.attrs == other.attrs
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_comes_back_also_where_a_name_looks_like_a_seal(tmp_path, kind):
    write, read = KINDS[kind]
    write(tmp_path / "file")
    write(tmp_path / "again")
    assert (tmp_path / "file").read_bytes() == (tmp_path / "again").read_bytes()
    first = read(tmp_path / "file")
    assert same(first, read(tmp_path / "again"))
    assert any(name in str(first) for name in (HOSTILE[0], "arange", "(7", "array"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_or_a_missing_end_is_damage_wherever_it_is(tmp_path, kind):
    """Of small files at every length and in every byte."""
    write, read = KINDS[kind]
    path = tmp_path / "file"
    write(path)
    good, expected = path.read_bytes(), read(path)
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
            if kind == "checkpoint":
                assert found == [("absent", None)]
                damaged += 1
            else:  # a flipped bit of the mark itself, in a file that may lack one
                assert kind == "reference"
                assert same(found, expected)
    assert damaged > 1.9 * len(places)


@pytest.mark.parametrize("kind", READERS)
def test_text_that_was_damaged_is_read_or_named(tmp_path, kind):
    good, read = READERS[kind]
    path = tmp_path / "file"
    for place in range(len(good)):
        for bit in range(8):
            flipped = bytearray(good)
            flipped[place] ^= 1 << bit
            for bad in (bytes(flipped), good[:place]):
                path.write_bytes(bad)
                with suppress(Damaged):
                    read(path)


def test_a_table_with_its_seal_is_one_that_others_can_read(tmp_path):
    write_dataset(tmp_path / "a.parquet", dataset())
    assert pd.read_parquet(tmp_path / "a.parquet").attrs["class_names"] == dataset().class_names


def test_a_table_without_a_seal_is_damaged(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(Damaged, match="the contents that it was sealed with"):
        sealed.read_table(tmp_path / "a.parquet")


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
        ({"class_name": ["x"] * 4}, None),
        ({"class_index": [9] * 4}, None),
        ({}, ["only one"]),
        ({}, 7),
        ({"another": [1] * 4}, None),
    ],
    ids=range(5),
)
def test_a_sealed_table_of_another_kind_is_damaged_too(tmp_path, rows, names):
    good = dataset()
    other = good.rows.assign(**rows)
    other.attrs = {"class_names": good.class_names if names is None else names}
    sealed.write_table(tmp_path / "a.parquet", other)
    with pytest.raises(Damaged, match=r"a\.parquet is damaged"):
        read_dataset(tmp_path / "a.parquet", Path())
