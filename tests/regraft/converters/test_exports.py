"""Exports that the tools' own libraries wrote (tests/data/converters) become the table of the photos that went in."""

import csv
import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from regraft.converters.conversion import convert
from regraft.converters.listing import Wanted
from regraft.core.errors import InvalidData
from regraft.photos.labels_file import read_labels

EXPORTS = Path(__file__).parents[2] / "data" / "converters"
PICTURES = EXPORTS / "pictures"
WITH_PHOTOS = ["huggingface", "webdataset", "coco", "imagenet"]


def pictures() -> dict[str, tuple[str, str]]:
    """Label and split of each picture, by its SHA-256."""
    return {
        hashlib.sha256(path.read_bytes()).hexdigest(): (path.parent.name, path.parts[-3])
        for path in PICTURES.glob("*/*/*.jpg")
    }


def rows(table: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    if table.suffix == ".parquet":
        return pq.read_table(table).to_pylist()
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", WITH_PHOTOS)
def test_every_photo_of_an_export_is_listed_with_its_label_and_split(name: str, tmp_path: Path) -> None:
    converted = convert(str(EXPORTS / name), tmp_path / "raw" / "labels.csv", Wanted())
    expected = pictures()
    listed = rows(tmp_path / "raw" / "labels.csv")
    assert {row["sha256"]: (row["label"], row.get("split", "")) for row in listed} == expected
    assert converted.left_out.count == 0
    for row in listed:
        assert hashlib.sha256((tmp_path / "raw" / row["path"]).read_bytes()).hexdigest() == row["sha256"]
    assert len(read_labels(tmp_path / "raw").listed) == len(expected)


def test_fields_of_a_source_become_group_and_slices(tmp_path: Path) -> None:
    convert(str(EXPORTS / "webdataset"), tmp_path / "labels.parquet", Wanted(group="tree", slices=("tree",)))
    listed = rows(tmp_path / "labels.parquet")
    assert sorted(row["group"] for row in listed) == sorted("0123" * 3)
    assert all(row["tree"] == row["group"] for row in listed)


def test_photos_that_lie_below_the_table_stay_where_they_are(tmp_path: Path) -> None:
    shutil.copytree(PICTURES, tmp_path / "raw")
    converted = convert(str(tmp_path / "raw"), tmp_path / "raw" / "labels.csv", Wanted())
    assert converted.copied == 0
    listed = {row["path"]: (row["sha256"], row["label"], row["split"]) for row in rows(tmp_path / "raw" / "labels.csv")}
    assert listed == {
        path.relative_to(PICTURES).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), *path.parts[-2:-4:-1])
        for path in PICTURES.glob("*/*/*.jpg")
    }


def test_names_in_an_export_can_be_relative_to_a_bucket(tmp_path: Path) -> None:
    annotations = EXPORTS / "coco" / "annotations" / "labels_test.json"
    convert(str(annotations), tmp_path / "labels.csv", Wanted(), photos="s3://fruit/test/")
    assert [row["path"] for row in rows(tmp_path / "labels.csv")] == [
        f"s3://fruit/test/{name}-3.jpg" for name in ("apple", "pear", "plum")
    ]


def test_a_field_that_no_photo_has_is_an_error_and_not_an_empty_column(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="has no field patiant that says something of any photo"):
        convert(str(EXPORTS / "webdataset"), tmp_path / "labels.csv", Wanted(group="patiant"))


@pytest.mark.parametrize("texts", [["tree"], ["group=a", "group=b"], ["slice=label"]])
def test_fields_are_asked_for_by_what_they_are(texts: list[str]) -> None:
    assert Wanted.parsed(["group=a", "slice=b", "slice=c"]) == Wanted(group="a", slices=("b", "c"))
    with pytest.raises(InvalidData, match="--field must be label=FIELD, group=FIELD or slice=FIELD"):
        Wanted.parsed(texts)
