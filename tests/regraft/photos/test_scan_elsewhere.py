"""What is known of photos elsewhere is not fetched again, whatever machine looked at them first."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regraft.core.errors import InvalidData
from regraft.photos import decoder, elsewhere
from regraft.photos.inspectors import Inspectors
from regraft.photos.known import Learning
from regraft.photos.manifest import find_files
from regraft.store.facts import Facts
from tests.support.library import scan_table
from tests.support.photo_server import PhotoServer, elsewhere_in, etag_of, png, serving

FACTS = {"sha256": lambda photo: hashlib.sha256(photo).hexdigest(), "etag": etag_of, "nothing": lambda _: ""}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PhotoServer]:
    monkeypatch.setattr(elsewhere, "_PAUSES", ())
    # In this process: to start others takes longer than all the rest.
    monkeypatch.setattr(Inspectors, "inspect", lambda _, path: decoder.inspect(path, max_pixels=10**6))
    with serving() as running:
        yield running


def night(
    folder: Path, server: PhotoServer, photos: list[bytes], *, given: str = "nothing", shared: str | None = None
) -> tuple[Learning, pd.DataFrame, dict[str, int]]:
    """Scan a table of photos on a machine whose disk is `folder`; return also what was fetched."""
    folder.mkdir(exist_ok=True)
    rows = [
        (server.add(f"{number}.png", photo), "cat" if number % 2 else "dog", FACTS[given](photo))
        for number, photo in enumerate(photos)
    ]
    columns = f"path,label,{given if given != 'nothing' else 'etag'}"
    source = elsewhere_in(folder)
    facts = Facts(folder / "store", shared, max_pixels=10**6)
    learning, manifest = scan_table(folder, rows, source, columns=columns, known=facts)
    return learning, manifest, source.fetches.as_report()


@pytest.mark.parametrize("given", FACTS)
def test_on_the_next_night_nothing_is_fetched_and_only_new_photos_are_decoded(tmp_path, server, given):
    photos = [png(number) for number in range(4)]
    _, first, fetched = night(tmp_path, server, photos, given=given)
    assert (set(first.verdict), fetched["photos_fetched"]) == ({"use", "ignore"}, 4)
    learning, second, fetched = night(tmp_path, server, photos, given=given)
    pd.testing.assert_frame_equal(second, first)
    assert (learning.decoded, fetched["bytes_fetched"]) == (0, 0)
    learning, _, fetched = night(tmp_path, server, [*photos, png(9)], given=given)
    assert (learning.decoded, fetched["bytes_fetched"]) == (1, len(png(9)))


def test_only_a_photo_of_which_nothing_is_given_is_asked_about(tmp_path, server):
    for given, asked in (("sha256", 0), ("etag", 0), ("nothing", 2)):
        server.asked.clear()
        night(tmp_path / given, server, [png(0), png(1)], given=given)
        assert sum(count for name, count in server.asked.items() if name.startswith("HEAD")) == asked


def test_a_server_without_etags_has_its_photos_fetched_and_hashed_and_none_is_decoded_twice(tmp_path, server):
    server.has_etags = False
    for decoded in (2, 0):
        learning, _, fetched = night(tmp_path, server, [png(0), png(1)])
        assert (learning.decoded, fetched["photos_fetched"]) == (decoded, 2)


@pytest.mark.parametrize("given", ["sha256", "nothing"])
def test_another_machine_fetches_nothing_that_the_shared_store_knows(tmp_path, server, s3_server, given):
    photos, shared = [png(number) for number in range(3)], f"s3://bucket/facts-{given}"
    _, first, _ = night(tmp_path / "one", server, photos, given=given, shared=shared)
    learning, second, fetched = night(tmp_path / "other", server, photos, given=given, shared=shared)
    pd.testing.assert_frame_equal(second, first)
    assert (learning.decoded, fetched["bytes_fetched"]) == (0, 0)


def test_what_cannot_be_fetched_is_named_and_the_rest_is_used(tmp_path, server):
    good, gone, text = server.add("good.png", png(0)), f"{server.url}/gone.png", server.add("notes.txt", b"words")
    changed = (server.add("changed.png", png(1)), "cat", "0" * 64)
    rows = [(good, "cat", ""), (gone, "cat", ""), (text, "cat", ""), changed]
    _, manifest = scan_table(tmp_path, rows, elsewhere_in(tmp_path), columns="path,label,sha256")
    reasons = manifest.set_index("path").reason.dropna()
    assert reasons[gone] == "cannot be fetched: there is no such photo (status 404)"
    assert "its bytes have changed: expected SHA-256 0000" in reasons[changed[0]]
    assert manifest.set_index("path").verdict[[good, text]].tolist() == ["use", "ignore"]


# The table.

HOSTILE = [
    "file:///etc/passwd",
    "ftp://host/a.png",
    "//host/a.png",
    r"..\a.png",
    "/etc/passwd",
    "https://host",
    "https://user:SECRET@host/a.png",
    "https://host/a.png?sig=SECRET",
    "https://host/a.png#SECRET",
    "https://host/../a.png",
    "https://host\\@other/a.png",
    "https://host/a\x1b[2J.png",
    "https://h\u00f6st/a.png",
    "https://host:99999/a.png",
    "s3://bucket",
    "s3://SECRET:SECRET@bucket/a.png",
    "s3://bucket/a.png?versionId=SECRET",
    "https://host/" + "a" * 1000,
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_address_is_refused_by_its_line_and_without_its_secret(tmp_path, url):
    (tmp_path / "labels.csv").write_text(f'path,label\n"{url}",cat\n', encoding="utf-8")
    with pytest.raises(InvalidData, match=r"has 1 line\(s\) to fix: line 2: path ") as error:
        find_files(tmp_path, ("https", "s3"))
    assert "SECRET" not in str(error.value)


def table(folder: Path, columns: dict[str, list], name: str = "labels.parquet") -> Path:
    pq.write_table(pa.table(columns), folder / name)
    return folder


def test_a_parquet_table_says_the_same_as_a_csv_file(tmp_path):
    rows = {"path": ["https://host/a.png", "s3://b-c/k/b.png"], "label": ["cat", "dog"], "split": ["test", None]}
    rows |= {"etag": ['"abc"', None], "camera": [1, 2]}
    listed = find_files(table(tmp_path, rows), ("https", "s3"))[2]
    (tmp_path / "labels.parquet").unlink()
    (tmp_path / "labels.csv").write_text(
        'path,label,split,etag,camera\nhttps://host/a.png,cat,test,"""abc""",1\ns3://b-c/k/b.png,dog,,,2\n'
    )
    assert listed == find_files(tmp_path, ("https", "s3"))[2]
    assert listed
    assert [found.etag for found in listed.listed.values()] == ["abc", None]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a.png"]}, "must have the columns path and label, and may have more, each once"),
        ({"path": ["a.png"], "label": [["cat"]]}, "column 'label' must hold texts, numbers or truth values"),
        ({"path": ["https://host/a"], "label": ["cat"], "sha256": ["12"]}, "must be 64 hexadecimal digits"),
        ({"path": ["a.png"] * 3, "label": ["x" * 200_000] * 3}, "must have texts of at most 4,096 bytes in 'label'"),
    ],
)
def test_a_wrong_parquet_table_is_refused_in_words(tmp_path, columns, message):
    with pytest.raises(InvalidData, match=message):
        find_files(table(tmp_path, columns), ("https",))


def test_two_tables_are_refused(tmp_path):
    table(tmp_path, {"path": ["a.png"], "label": ["cat"]})
    (tmp_path / "labels.csv").write_text("path,label\na.png,dog\n")
    with pytest.raises(InvalidData, match=r"two tables in .*, labels\.csv and labels\.parquet: expected one"):
        find_files(tmp_path)


def test_a_local_file_with_other_bytes_than_the_table_says_is_not_used(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.png").write_bytes(png(0))
    _, manifest = scan_table(
        tmp_path, [("a.png", "cat", "0" * 64)], elsewhere_in(tmp_path), columns="path,label,sha256"
    )
    assert "its bytes have changed: the table says SHA-256 0000" in manifest.set_index("path").reason["a.png"]
