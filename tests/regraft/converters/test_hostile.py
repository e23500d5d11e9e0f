"""What exports from people and programs that nobody trusts cannot do, and how they are refused."""

import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regraft.converters.conversion import Converted, Output, convert
from regraft.converters.listing import Wanted
from regraft.core.errors import InvalidData, RegraftError
from regraft.photos.folder import walk
from tests.regraft.converters.test_exports import PICTURES, rows

PHOTO = (PICTURES / "train" / "apple" / "apple-0.jpg").read_bytes()
OTHER = (PICTURES / "train" / "pear" / "pear-0.jpg").read_bytes()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def table_of(source: Path, tmp_path: Path) -> tuple[Converted, list[dict[str, str]]]:
    """Convert a source, beside which nothing may be written."""
    out = tmp_path / "raw" / "labels.csv"
    converted = convert(str(source), out, Wanted())
    return converted, rows(out)


def coco(path: Path, **labels: list[str]) -> Path:
    """Write a COCO file of images, each with its labels."""
    names = sorted({label for each in labels.values() for label in each})
    given = [(number, label) for number, each in enumerate(labels.values()) for label in each]
    contents = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(labels)],
        "annotations": [{"image_id": number, "category_id": names.index(label)} for number, label in given],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
    }
    path.write_text(json.dumps(contents))
    return path


def tar(path: Path, members: Sequence[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    """Write a tar file of members, each with its name or its header."""
    with tarfile.open(path, "w") as file:
        for name, content in members:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "a/../../secret.jpg", "..\\secret.jpg", "link.jpg"],
)
def test_a_name_that_leaves_the_folder_of_the_photos_is_never_opened(name: str, tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    (tmp_path / "secret.jpg").write_bytes(OTHER)
    (export / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (export / "good.jpg").write_bytes(PHOTO)
    converted, listed = table_of(coco(export / "a.json", **{name: ["cat"], "good.jpg": ["cat"]}), tmp_path)
    assert (len(listed), converted.left_out.count) == (1, 1)
    assert len(list((tmp_path / "raw" / "photos").iterdir())) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pa55word@host/a.jpg",
        "https://host/a.jpg?X-Amz-Signature=pa55word",
        "s3://bucket/../a.jpg",
    ],
)
def test_an_address_that_may_hold_a_secret_or_leads_elsewhere_is_left_out_and_not_shown(
    url: str, tmp_path: Path
) -> None:
    source = coco(tmp_path / "a.json", **{url: ["cat"], "https://host/good.jpg": ["cat"]})
    converted, listed = table_of(source, tmp_path)
    assert [row["path"] for row in listed] == ["https://host/good.jpg"]
    words = "\n".join(converted.lines())
    assert "address a table must not hold" in words
    assert "pa55word" not in words


def test_members_of_a_tar_file_write_nothing_by_their_names_and_links_are_no_photos(tmp_path: Path) -> None:
    link = tarfile.TarInfo("b.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members = [("../../a.jpg", PHOTO), ("../../a.cls", b"cat"), (link, b""), ("b.cls", b"cat")]
    converted, listed = table_of(tar(tmp_path / "a.tar", members), tmp_path)
    assert len(listed) == 1
    assert "1 of which the source names no photo: a.tar: b" in converted.left_out.lines()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "raw"]


@pytest.mark.parametrize("content", [b"<script>alert(1)</script>", b""])
def test_what_is_no_image_is_left_out_whatever_it_is_called(content: bytes, tmp_path: Path) -> None:
    members = [("a.jpg", content), ("a.cls", b"cat"), ("b.jpg", PHOTO), ("b.cls", b"cat")]
    converted, listed = table_of(tar(tmp_path / "a.tar", members), tmp_path)
    assert (len(listed), converted.left_out.lines()) == (1, ["1 whose content is no image that is read: a.tar: a"])
    assert len(list((tmp_path / "raw" / "photos").iterdir())) == 1


def test_a_photo_under_two_labels_is_left_out_and_a_copy_is_listed_once(tmp_path: Path) -> None:
    members = []
    for key, content, label in (("a", PHOTO, b"cat"), ("b", PHOTO, b"dog"), ("c", OTHER, b"cat"), ("d", OTHER, b"cat")):
        members += [(f"{key}.jpg", content), (f"{key}.cls", label)]
    converted, listed = table_of(tar(tmp_path / "a.tar", members), tmp_path)
    assert [row["label"] for row in listed] == ["cat"]
    assert any(line.startswith("1 with several labels: photos/") for line in converted.left_out.lines())
    assert len(list((tmp_path / "raw" / "photos").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"[" * 100_000, "is no JSON: .*recursion"),
        ("a.json", b'{"a": 1}', "is of no known format. Known are .* --format"),
        ("a.json", b'[{"annotations": []}]', "task 0 must have an object `data`"),
        (
            "a.json",
            b'{"images": [], "annotations": [{"category_id": [7]}], "categories": []}',
            r"annotation 0 must name one of the categories by its category_id. Received: \[7\]",
        ),
        ("a.parquet", b"PAR1" + bytes(100), "a.parquet is no sound Parquet file"),
        ("a.tar", b"nothing" * 1000, "a.tar is no sound tar file"),
        ("a.zip", b"PK", "is packed. Unpack it"),
    ],
)
def test_what_is_no_such_export_is_an_error_that_says_where_and_what_to_do(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidData, match=message):
        table_of(tmp_path / name, tmp_path)
    assert not (tmp_path / "raw" / "labels.csv").exists()


def test_a_label_of_hugging_face_without_a_name_is_an_error_and_minus_one_is_no_label(tmp_path: Path) -> None:
    facts = {"info": {"features": {"label": {"names": ["cat"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}
    images = pa.array([{"bytes": PHOTO, "path": None}] * 2)
    for number, labels in enumerate(([0, -1], [0, 7])):
        table = pa.table({"image": images, "label": labels})
        table = table.replace_schema_metadata({"huggingface": json.dumps(facts)})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    converted, listed = table_of(tmp_path / "0.parquet", tmp_path)
    assert ([row["label"] for row in listed], converted.left_out.lines()) == (
        ["cat"],
        ["1 without a label: 0.parquet: row 1"],
    )
    with pytest.raises(InvalidData, match=r"1\.parquet: row 1 must have a label from 0 to 0, .* Received: 7"):
        convert(str(tmp_path / "1.parquet"), tmp_path / "other.csv", Wanted())


def test_a_table_that_is_there_stays_unless_it_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "labels.csv").write_text("path,label\n")
    with pytest.raises(InvalidData, match=r"is there already\. Add --replace"):
        table_of(PICTURES, tmp_path)
    assert (tmp_path / "raw" / "labels.csv").read_text() == "path,label\n"
    convert(str(PICTURES), tmp_path / "raw" / "labels.csv", Wanted(), replace=True)
    assert len(rows(tmp_path / "raw" / "labels.csv")) == 12


def test_copies_are_hidden_until_the_table_stands_and_removed_if_it_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        assert (walk(tmp_path / "raw"), len(list((tmp_path / "raw").rglob("*.jpg")))) == ([], 12)
        raise KeyboardInterrupt

    monkeypatch.setattr(Output, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        table_of(PICTURES, tmp_path)
    assert names_in(tmp_path / "raw") == []


def private(tmp_path: Path) -> Path:
    """Return a folder with a file of somebody who shares nothing."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "letter.txt").write_text("mine")
    return tmp_path / "private"


def test_a_link_in_the_place_of_the_copies_is_refused_and_nothing_is_written_through_it(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "photos").symlink_to(private(tmp_path))
    with pytest.raises(RegraftError, match=r"raw/photos must be a folder that is no link, and is a link to .*private"):
        table_of(PICTURES, tmp_path)
    assert (names_in(tmp_path / "private"), names_in(tmp_path / "raw")) == (["letter.txt"], ["photos"])


def header_of(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    header = tarfile.TarInfo("a.jpg")
    header.type, header.size = kind, size
    return header.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        header_of(2**62) + bytes(2**16),
        header_of(-512) + bytes(2**16),
        (header_of(1, b"L") + b"x" * 512) * 2000,
        header_of(10 * 2**30, tarfile.XHDTYPE) + bytes(2**16),
    ],
)
def test_a_tar_file_whose_headers_ask_for_the_impossible_is_refused_at_once(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InvalidData, match=r"a\.tar"):
        table_of(tmp_path / "a.tar", tmp_path)


def test_a_tar_file_that_is_packed_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(gzip.compress(tar(tmp_path / "source", [("a.jpg", bytes(10**8))]).read_bytes()))
    tracemalloc.start()
    with pytest.raises(InvalidData, match=r"a\.tar is no sound tar file"):
        table_of(tmp_path / "a.tar", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_copies_leave_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tar(tmp_path / "a.tar", [("a.jpg", PHOTO), ("a.cls", b"cat")])
    monkeypatch.setattr("regraft.core.files.free_bytes", lambda _: 256 * 2**20)
    with pytest.raises(RegraftError, match=r"There is no room in .*raw: a photo of the source .* 268\.4 MB are free"):
        table_of(source, tmp_path)
    assert names_in(tmp_path) == ["a.tar"]
