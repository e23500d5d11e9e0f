"""A prefix of a bucket as a folder of photos."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from regraft.converters.conversion import convert
from regraft.converters.listing import Wanted
from regraft.core.errors import InvalidData, RegraftError
from tests.regraft.converters.test_exports import rows

PATHS = ["dog/2.jpg", "cat/sub/1.PNG", "cat/a b.jpg", "dog/no-suffix", "cat/ä.webp"]
NO_PHOTOS = [
    "readme.md",
    "top.jpg",
    "cat/notes.txt",
    "cat/.hidden.jpg",
    ".cache/x/1.jpg",
    "cat/empty.jpg",
    "cat/q?.jpg",
]


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """A store that lasts as long as a test."""
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/photos", recursive=True)


def put(files: fsspec.AbstractFileSystem, root: str, paths: list[str]) -> None:
    """Write objects of one byte, but for those that are called empty."""
    for path in paths:
        files.pipe(f"{root}/{path}", b"" if "empty" in path else b"x")


@pytest.mark.usefixtures("s3_server")
def test_a_prefix_is_listed_with_addresses_and_etags_in_the_order_of_its_keys(tmp_path: Path) -> None:
    files = fsspec.filesystem("s3", use_listings_cache=False)
    put(files, "bucket/table", PATHS + NO_PHOTOS)
    converted = convert("s3://bucket/table/", tmp_path / "labels.csv", Wanted())
    listed = rows(tmp_path / "labels.csv")
    assert [row["path"] for row in listed] == [f"s3://bucket/table/{path}" for path in sorted(PATHS)]
    assert {row["etag"] for row in listed} == {"9dd4e461268c8034f5c8564e155c67a6"}  # the MD5 of x
    assert [row["label"] for row in listed] == ["cat", "cat", "cat", "dog", "dog"]
    assert "split" not in listed[0]
    assert converted.left_out.lines() == [
        "1 empty: cat/empty.jpg",
        "2 not named as an image: cat/notes.txt; readme.md",
        "1 whose name has `?`, `#`, `..`, `//` or letters that cannot be seen, or is too long: "
        "(not shown, since it may hold a password)",
        "1 not inside a class folder: top.jpg",
    ]


def test_other_stores_are_listed_folder_by_folder(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regraft.converters.listing.SCHEMES", ("memory",))
    put(memory, "/photos", ["dog/1.jpg", "cat/sub/2.jpg", "cat/3.jpg"])
    convert("memory://photos", tmp_path / "labels.csv", Wanted())
    assert [row["path"] for row in rows(tmp_path / "labels.csv")] == [
        f"memory://photos/{path}" for path in ("cat/3.jpg", "cat/sub/2.jpg", "dog/1.jpg")
    ]


@pytest.mark.usefixtures("s3_server")
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://nobody-has-this/photos", "cannot be listed: .*Check that"),
        ("s3://bucket/nothing", "no photo that can be"),
    ],
)
def test_a_bucket_that_is_not_there_or_empty_is_an_error_and_leaves_the_table_as_it_was(
    address: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text("path,label\n")
    with pytest.raises(RegraftError, match=reason):
        convert(address, tmp_path / "labels.csv", Wanted(), replace=True)
    assert (tmp_path / "labels.csv").read_text() == "path,label\n"


@pytest.mark.parametrize("address", ["s3://key:secret@bucket/photos", "s3://bucket/a?secret"])
def test_an_address_that_may_hold_a_secret_is_refused_and_not_shown(address: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="what is listed must be an address") as caught:
        convert(address, tmp_path / "labels.csv", Wanted())
    assert "secret@" not in str(caught.value)
    assert "?secret" not in str(caught.value)
