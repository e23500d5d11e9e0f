from pathlib import Path

import pytest

from regraft.core.errors import InvalidData
from regraft.core.files import read_json
from regraft.photos.manifest import read_manifest, write_manifest
from regraft.photos.split_record import read_record
from tasks.preprocess import preprocess
from tasks.validate_data import validate_data
from tests.support.library import dataset_in
from tests.support.small_project import quiet, write_photos


def test_an_image_keeps_its_split_when_images_are_added_and_renamed(project, small_params):
    before = dataset_in(project).rows.set_index("digest").split
    for photo in list((project / "data" / "raw" / "red").iterdir()):
        photo.rename(photo.with_name(f"renamed {photo.name}"))
    write_photos(project / "data" / "raw", per_class=4, seed=2)
    validate_data.function(small_params, quiet)
    preprocess.function(small_params, quiet)
    after = dataset_in(project).rows.set_index("digest").split
    assert len(after) == len(before) + 12
    assert (after[before.index] == before).all()


def regroup(project: Path, **groups: str) -> None:
    """Give photos of the manifest other groups: name by split, for all photos that have it now."""
    path = project / "build" / "manifest.parquet"
    layout, manifest = read_manifest(path)
    split = manifest.digest.map(dataset_in(project).rows.set_index("digest").split)
    manifest["group"] = split.map(groups).fillna(manifest.group)
    write_manifest(path, layout, manifest)


def test_an_image_keeps_its_split_when_its_group_is_renamed_and_a_clone_gives_it_the_same(project, small_params):
    before = (project / "build" / "dataset.parquet").read_bytes()
    regroup(project, test="f" * 64)  # which alone is a group of train
    preprocess.function(small_params, quiet)
    assert (project / "build" / "dataset.parquet").read_bytes() == before
    record = read_record(project / "data" / "splits.csv")
    assert record
    assert set(dataset_in(project).of("test").rows.digest) <= record.splits.keys()
    assert read_json(project / "reports" / "dataset.json")["kept_splits"] == len(record.splits)
    (project / "build" / "dataset.parquet").unlink()
    preprocess.function(small_params, quiet)
    assert (project / "build" / "dataset.parquet").read_bytes() == before


def test_groups_that_would_leave_out_many_images_stop_with_what_to_do(project, small_params):
    regroup(project, train="f" * 64, val="f" * 64)
    with pytest.raises(
        InvalidData,
        match=r"images would be left out.* \(it was in train, and its group is in val\).*"
        r"remove data/splits\.csv and build/dataset\.parquet and run again",
    ):
        preprocess.function(small_params, quiet)


def test_the_report_counts_every_image_once(project):
    report = read_json(project / "reports" / "dataset.json")
    assert sum(report["splits"].values()) == report["images"] == 72


def test_a_class_without_training_images_stops_with_its_name(project, small_params):
    before = dataset_in(project).photos()
    for photo in before:
        if photo.class_name == "red" and photo.split == "train":
            (project / "data" / "raw" / photo.path).unlink()
    validate_data.function(small_params, quiet)
    with pytest.raises(InvalidData, match=r"1 class\(es\) have none in train: 'red' \(\d+ image\(s\)\)"):
        preprocess.function(small_params, quiet)


def test_a_class_without_test_images_is_trained_and_named_in_the_report(project, small_params):
    for photo in dataset_in(project).photos():
        if photo.class_name == "red" and photo.split == "test":
            (project / "data" / "raw" / photo.path).unlink()
    validate_data.function(small_params, quiet)
    preprocess.function(small_params, quiet)
    assert read_json(project / "reports" / "dataset.json")["not_in_test"] == ["red"]
