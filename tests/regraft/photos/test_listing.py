"""Listings of the data folder: what counts as new, and when."""

import os
from pathlib import Path

import fsspec
import pytest

from regraft.core.errors import RegraftError
from regraft.photos.listing import (
    Change,
    Settling,
    Stamp,
    difference,
    list_address,
    list_folder,
    read_listing,
    write_listing,
)

ONE = {b"glass/1.jpg": Stamp(10, "1")}
TWO = ONE | {b"glass/2.jpg": Stamp(10, "1")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with two photos."""
    for name in ("glass/1.jpg", "paper/2.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"photo")
    return tmp_path


@pytest.mark.parametrize("edit", ["grown", "rewritten", "renamed"])
def test_a_file_that_is_changed_is_told(folder: Path, edit: str):
    before, photo = list_folder(folder), folder / "glass" / "1.jpg"
    if edit == "grown":
        photo.write_bytes(b"longer")
    elif edit == "rewritten":
        os.utime(photo, ns=(1, 1))
    else:
        photo.rename(photo.with_name("3.jpg"))
    change = difference(before, list_folder(folder))
    assert (change.added, change.removed, change.changed) == {
        "grown": (0, 0, 1),
        "rewritten": (0, 0, 1),
        "renamed": (1, 1, 0),
    }[edit]


def test_nothing_outside_is_looked_at_and_no_pipe_is_waited_for(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.jpg").touch()
    (folder / "glass" / "link").symlink_to(outside)
    os.mkfifo(folder / "glass" / "pipe.jpg")
    assert sorted(list_folder(folder)) == [b"glass/1.jpg", b"glass/link", b"glass/pipe.jpg", b"paper/2.jpg"]


def test_a_name_that_is_no_text_is_counted_kept_and_shown_harmlessly(folder: Path, tmp_path: Path):
    (folder / os.fsdecode(b"b\xff\x1b[2J")).mkdir()
    (folder / os.fsdecode(b"b\xff\x1b[2J") / os.fsdecode(b"\xfe.jpg")).touch()
    listing = list_folder(folder)
    write_listing(tmp_path / "kept.parquet", "here", listing)
    assert read_listing(tmp_path / "kept.parquet", "here") == listing
    assert "(b\\xff\\x1b[2J 1, glass 1, paper 1)" in difference({}, listing).words()


def test_counts_are_told_by_class_in_any_layout():
    listing = {path: Stamp(1, "1") for path in (b"train/cat/1.jpg", b"Test/cat/a/2.jpg", b"dog/3.jpg", b"labels.csv")}
    assert difference({}, listing) == Change(4, 4, 0, 0, (("cat", 2), ("dog", 1)))
    assert difference({}, listing).words() == "4 files: 4 new (cat 2, dog 1)"


def test_a_change_is_told_once_writing_has_settled():
    settling = Settling({}, settle_seconds=20)
    assert settling.look(ONE, now=100) is None
    assert settling.look(TWO, now=115) is None
    assert settling.look(TWO, now=130) is None  # one more was written 15 s ago
    change = settling.look(TWO, now=135)
    assert change is not None
    assert change.added == 2
    settling.announced = TWO
    assert settling.look(TWO, now=200) is None


def test_a_photo_that_came_and_went_again_is_no_change():
    settling = Settling(ONE, settle_seconds=10)
    assert [settling.look(listing, now) for listing, now in ((ONE, 0), (TWO, 50), (ONE, 55), (ONE, 100))] == [None] * 4


@pytest.mark.parametrize("fault", ["other place", "damaged", "absent"])
def test_where_nothing_is_known_of_before_all_is_new(tmp_path: Path, fault: str):
    path = tmp_path / "kept.parquet"
    write_listing(path, "there" if fault == "other place" else "here", ONE)
    if fault == "damaged":
        path.write_bytes(path.read_bytes()[:-20])
    elif fault == "absent":
        path.unlink()
    assert read_listing(path, "here") == {}


@pytest.mark.usefixtures("s3_server")
def test_a_bucket_is_listed_and_a_photo_that_is_written_anew_is_told():
    files = fsspec.filesystem("s3")
    files.pipe({"bucket/photos/cat/1.jpg": b"one", "bucket/photos/dog/2.jpg": b"two", "bucket/other/3.jpg": b"three"})
    before = list_address("s3://bucket/photos")
    assert sorted(before) == [b"cat/1.jpg", b"dog/2.jpg"]
    files.pipe("bucket/photos/cat/1.jpg", b"six")
    assert difference(before, list_address("s3://bucket/photos")) == Change(2, 0, 0, 1, (("cat", 1),))


@pytest.mark.parametrize("address", ["s3://user:secret@bucket", "s3://bucket?secret=1", "http://secret"])
def test_an_address_that_may_hold_a_secret_is_refused_and_not_shown(address: str):
    with pytest.raises(RegraftError) as told:
        list_address(address)
    assert "secret" not in str(told.value).replace("may hold a secret", "").replace("may hold secrets", "")
