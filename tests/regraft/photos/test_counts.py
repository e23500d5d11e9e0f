"""Where the images went: groups, slices, and what was left out and why."""

from pathlib import Path

import pandas as pd
import pytest

from regraft.core.errors import InvalidData
from regraft.photos.counts import check_left_out, dataset_report
from regraft.photos.split_record import Earlier, SplitRecord
from regraft.photos.splitting import build_dataset

SHARES = {"val_share": 0.25, "test_share": 0.25}


def name_of(number: int) -> str:
    """A digest that is placed in train."""
    return f"8{number:063x}"


GROUP = name_of(99)


def manifest_of(**columns: list[str | None]) -> pd.DataFrame:
    """Used photos 0.png, 1.png, ... of two classes, each a group of its own unless a column says otherwise."""
    numbers = range(len(next(iter(columns.values()))))
    digests = [name_of(number) for number in numbers]
    table = {"path": [f"{number}.png" for number in numbers], "digest": digests, "group": digests}
    table |= {"split": [None for _ in numbers], "label": [["cat", "dog"][number % 2] for number in numbers]}
    frame = pd.DataFrame({name: pd.Series(values, dtype="str") for name, values in (table | columns).items()})
    return frame.assign(verdict="use", format="PNG")


def report_of(manifest: pd.DataFrame, *earlier: str) -> dict:
    splits = {name_of(number): split for number, split in enumerate(earlier)}
    dataset = build_dataset(manifest, Path(), val_share=0.25, test_share=0.25, earlier=splits)
    return dataset_report("labels", manifest, dataset, Earlier(splits, ""), SplitRecord(**SHARES, splits=splits))


def test_groups_are_counted_by_different_files():
    manifest = manifest_of(group=[GROUP, GROUP, GROUP, name_of(3), name_of(4)], given_group=["P", "P", None, None, "Q"])
    manifest = pd.concat([manifest, manifest.tail(1).assign(path="copy.png")])
    assert report_of(manifest)["groups"] == {"groups": 3, "photos_in_larger": 3, "given": 2}


def test_images_of_the_data_set_are_counted_by_slice_and_of_many_values_the_most_frequent():
    sites = ["north", None, "south", "north", *map(str, range(40))]
    manifest = manifest_of(**{"slice.site": sites})
    manifest = pd.concat([manifest, manifest.head(1).assign(path="copy.png")])
    found = report_of(manifest)["slices"]["site"]
    assert (found["values"], found["without"], len(found["images"])) == (42, 1, 30)
    assert next(iter(found["images"].items())) == ("north", 2)


def test_what_was_left_out_is_named_with_the_reason():
    manifest = manifest_of(group=[GROUP, GROUP, GROUP, name_of(3)], split=[None, None, "val", None])
    report = report_of(manifest, "test", "val")
    assert report["left_out"] == [
        {"path": "1.png", "why": "it was in val, and its group is in test", "was_elsewhere": True},
        {"path": "2.png", "why": "it is in your val, and its group is in test", "was_elsewhere": False},
    ]
    assert (report["kept_splits"], report["absent_splits"], report["images"]) == (1, 1, 2)


def test_images_with_the_split_that_the_user_gave_are_counted():
    manifest = manifest_of(split=["train", "val", None, "test", "train"], group=[*map(name_of, range(4)), name_of(3)])
    assert report_of(pd.concat([manifest, manifest.head(1)]))["given_splits"] == 3  # the last is left out


@pytest.mark.parametrize(("photos", "is_refused"), [(9, True), (10, False)])
def test_at_most_a_tenth_of_the_images_is_left_out_because_they_were_elsewhere(photos, is_refused):
    groups = [GROUP, GROUP, *map(name_of, range(2, photos))]
    report = report_of(manifest_of(group=groups), "test", "val")
    if is_refused:
        with pytest.raises(InvalidData, match=r"1 of 9 images would be left out.*1\.png \(it was.*remove a and b"):
            check_left_out(report, [Path("a"), Path("b")])
    else:
        check_left_out(report, [Path("a"), Path("b")])
