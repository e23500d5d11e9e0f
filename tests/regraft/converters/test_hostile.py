"""What exports from people and programs that nobody trusts cannot do, and how they are refused."""

import bz2
import gzip
import hashlib
import io
import itertools
import json
import lzma
import os
import shutil
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regraft.converters import conversion
from regraft.converters.conversion import Converted, convert
from regraft.converters.photo_files import PhotoFiles
from regraft.converters.records import LeftOut, Record, Wanted
from regraft.errors import InvalidData, RegraftError
from regraft.photos.folder import walk
from tests.regraft.converters.test_exports import PICTURES, rows

PHOTO, OTHER = ((PICTURES / "train" / "apple" / f"apple-{number}.jpg").read_bytes() for number in (0, 1))
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
    ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "..\\secret.jpg", "C:/secret.jpg", "link.jpg", "a\nb.jpg"],
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
        "file:///etc/passwd",
        "https://user:pa55word@host/a.jpg",
        "https://host/a.jpg?X-Amz-Signature=pa55word",
        "ftp://host/a.jpg",
        "s3://bucket/../a.jpg",
        "://u:pa55word@host/a.jpg",
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


def test_a_header_of_a_tar_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 10 * 2**30
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2**16))
    # Python 3.13 notices by itself that the file ends before.
    noticed = "(a header of 10,737,418,240 bytes|empty header)"
    with pytest.raises(InvalidData, match=rf"a\.tar is no sound tar file: {noticed}"):
        table_of(tmp_path / "a.tar", tmp_path)


@pytest.mark.parametrize("content", [b"<script>alert(1)</script>", b"\x7fELF", b"", b"%PDF-1.7"])
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


def test_entities_in_xml_are_refused_before_they_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotations>&b;</annotations>'
    )
    with pytest.raises(InvalidData, match=r"line 1, declares a document type, .* Export it as"):
        table_of(tmp_path / "a.xml", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "is no JSON: .* Export it again"),
        ("a.json", b"[" * 100_000, "is no JSON: .*recursion"),
        ("a.json", b"\xff", "is no JSON: .*utf-8"),
        ("a.json", b'{"a": 1}', "is of no known format. Known are .* --format"),
        ("a.json", b'[{"annotations": []}]', "task 0 must have an object `data`"),
        ("a.json", b'{"images": [1], "annotations": [], "categories": []}', "entry 0 of images must be an object"),
        (
            "a.json",
            b'{"images": [], "annotations": [{"category_id": [7]}], "categories": []}',
            r"annotation 0 must name one of the categories by its category_id. Received: \[7\]",
        ),
        ("a.json", b'{"classes": ["cat"], "labels": {"a": 7}}', "label of a must be .* from 0 to 0. Received: 7"),
        ("a.xml", b"<annotations>", "is no XML: no element found: line 1"),
        ("a.xml", b"<html/>", "must have an element <annotations>"),
        ("a.parquet", b"PAR1" + bytes(100), "a.parquet is no sound Parquet file"),
        ("a.tar", b"nothing" * 1000, "a.tar is no sound tar file"),
        ("a.zip", b"PK", "is an archive. Unpack it"),
        ("a.doc", b"", "is of no known format"),
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


def test_where_nothing_can_be_listed_no_table_is_written_and_the_reasons_are_named(tmp_path: Path) -> None:
    source = coco(tmp_path / "a.json", **{"a.jpg": ["cat", "dog"], "b.jpg": [], "c.jpg": ["cat"]})
    with pytest.raises(InvalidData, match=r"(?s)no photo that can be listed.*several labels: a.json: a.jpg \(cat, dog"):
        table_of(source, tmp_path)
    assert not (tmp_path / "raw" / "labels.csv").exists()


def test_a_table_that_is_there_stays_unless_it_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "labels.csv").write_text("path,label\n")
    with pytest.raises(InvalidData, match=r"is there already\. Add --replace"):
        table_of(PICTURES, tmp_path)
    assert (tmp_path / "raw" / "labels.csv").read_text() == "path,label\n"
    convert(str(PICTURES), tmp_path / "raw" / "labels.csv", Wanted(), replace=True)
    assert len(rows(tmp_path / "raw" / "labels.csv")) == 12


def test_a_damaged_copy_of_a_photo_is_written_again_and_a_sound_one_is_left_alone(tmp_path: Path) -> None:
    _, listed = table_of(PICTURES, tmp_path)
    one, two = (tmp_path / "raw" / row["path"] for row in listed[:2])
    one.write_bytes(b"")
    os.utime(two, (1, 1))
    convert(str(PICTURES), tmp_path / "raw" / "labels.csv", Wanted(), replace=True)
    assert (one.stat().st_size > 0, two.stat().st_mtime) == (True, 1.0)


def cut_off(path: Path) -> Path:
    """Write a tar file of one sound sample and half of another one."""
    members = [("a.jpg", PHOTO), ("a.cls", b"cat"), ("b.jpg", OTHER), ("b.cls", b"dog")]
    content = tar(path, members).read_bytes()
    path.write_bytes(content[: len(PHOTO) + 1024 + 512 + 1024 + len(OTHER) // 2])
    return path


@pytest.mark.parametrize("are_there", ["nothing", "another photo", "the same photo"])
def test_a_conversion_that_fails_removes_its_copies_and_nothing_that_was_there(are_there: str, tmp_path: Path) -> None:
    photos = tmp_path / "raw" / "photos"
    if are_there != "nothing":
        photos.mkdir(parents=True)
        content = PHOTO if are_there == "the same photo" else OTHER
        (photos / f"{hashlib.sha256(content).hexdigest()}.jpg").write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidData, match="no sound tar file"):
        table_of(cut_off(tmp_path / "a.tar"), tmp_path)
    assert sorted(set(tmp_path.rglob("*")) - {tmp_path / "a.tar"}) == before


def test_a_conversion_that_is_killed_leaves_no_folder_that_would_be_a_class_and_the_next_one_removes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, seen = tmp_path / "raw", []
    monkeypatch.setattr(conversion, "write_labels", lambda *_: seen.extend((walk(raw), names_in(raw))))
    with pytest.raises(FileNotFoundError):  # of the table, which this one does not write
        table_of(PICTURES, tmp_path)
    files, (waiting,) = seen
    assert (files, waiting[0]) == ([], ".")  # what a kill at this moment leaves
    assert not raw.exists()  # and an error leaves nothing
    (raw / waiting).mkdir(parents=True)
    (raw / waiting / f"{'0' * 64}.jpg").write_bytes(PHOTO[:99])
    monkeypatch.undo()
    _, listed = table_of(PICTURES, tmp_path)
    assert names_in(raw) == ["labels.csv", "photos"]
    assert all((raw / row["path"]).is_file() for row in listed)


def private(tmp_path: Path) -> Path:
    """Return a folder with a file of somebody who shares nothing."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "letter.txt").write_text("mine")
    return tmp_path / "private"


@pytest.mark.parametrize("name", [".photos-of-a-conversion", ".photos-of-a-conversion-x"])
@pytest.mark.parametrize("is_link", [True, False])
def test_nothing_is_moved_or_removed_but_what_the_conversion_has_copied(
    name: str, is_link: bool, tmp_path: Path
) -> None:
    mine, waiting = private(tmp_path), tmp_path / "raw" / name
    waiting.parent.mkdir()
    if is_link:
        waiting.symlink_to(mine)
    else:
        waiting.mkdir()
        (waiting / "letter.txt").write_text("mine")
    _, listed = table_of(PICTURES, tmp_path)
    assert sorted(f"photos/{photo}" for photo in names_in(tmp_path / "raw" / "photos")) == [r["path"] for r in listed]
    assert (names_in(mine), names_in(waiting)) == (["letter.txt"], ["letter.txt"])


def test_a_link_in_the_place_of_the_copies_is_refused_and_nothing_is_written_through_it(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "photos").symlink_to(private(tmp_path))
    with pytest.raises(RegraftError, match=r"raw/photos must be a folder that is no link, and is a link to .*private"):
        table_of(PICTURES, tmp_path)
    assert (names_in(tmp_path / "private"), names_in(tmp_path / "raw")) == (["letter.txt"], ["photos"])


def test_a_link_in_the_place_of_one_copy_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    photos, outside = tmp_path / "raw" / "photos", tmp_path / "outside.jpg"
    outside.write_bytes(PHOTO)
    photos.mkdir(parents=True)
    (photos / f"{hashlib.sha256(PHOTO).hexdigest()}.jpg").symlink_to(outside)
    _, listed = table_of(PICTURES, tmp_path)
    assert len(listed) == 12
    assert not any(path.is_symlink() for path in photos.iterdir())
    assert outside.read_bytes() == PHOTO


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_copies_are_removed_if_the_table_is_not_written(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(conversion, "write_labels", fail)
    with pytest.raises(error):
        table_of(PICTURES, tmp_path)
    assert not (tmp_path / "raw").exists()


def interrupted(act: Callable[..., Any], calls: tuple[int, ...]) -> Callable[..., Any]:
    """Return a function that does the same, but at some calls is told to stop."""
    numbers = itertools.count()

    def told(*arguments: Any, **options: Any) -> Any:
        if next(numbers) in calls:
            raise KeyboardInterrupt
        return act(*arguments, **options)

    return told


def test_a_conversion_that_is_told_to_stop_when_its_table_is_there_moves_the_photos_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        (tmp_path / "raw" / "labels.csv").touch()
        monkeypatch.setattr(Path, "replace", interrupted(Path.replace, (1, 2, 7)))
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "write_labels", stop)
    with pytest.raises(KeyboardInterrupt):
        table_of(PICTURES, tmp_path)
    assert names_in(tmp_path / "raw") == ["labels.csv", "photos"]
    assert len(names_in(tmp_path / "raw" / "photos")) == 12


def test_a_conversion_that_is_told_to_stop_again_and_again_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        monkeypatch.setattr(shutil, "rmtree", interrupted(shutil.rmtree, (0, 1)))
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "write_labels", stop)
    with pytest.raises(KeyboardInterrupt):
        table_of(PICTURES, tmp_path)
    assert not (tmp_path / "raw").exists()


def header_of(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    header = tarfile.TarInfo("a.jpg")
    header.type, header.size = kind, size
    return header.tobuf(tarfile.GNU_FORMAT)


def pax_of(size: str) -> bytes:
    header = tarfile.TarInfo("a.jpg")
    header.pax_headers = {"size": size}
    return header.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        header_of(2**62),
        header_of(2**62) + bytes(2**16),
        header_of(-512) + bytes(2**16),
        pax_of(str(2**62)) + bytes(2**16),
        pax_of("-512") + bytes(2**16),
        (header_of(1, b"L") + b"x" * 512) * 2000,
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_tar_file_whose_headers_ask_for_the_impossible_is_refused_at_once(
    content: bytes, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.tar").write_bytes(pack(content))
    with pytest.raises(InvalidData, match=r"a\.tar"):
        table_of(tmp_path / "a.tar", tmp_path)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar"])
def test_a_packed_tar_file_that_would_fill_the_disk_is_refused(name: str, tmp_path: Path) -> None:
    members = []
    for number in range(150):
        members += [(f"{number}.jpg", PHOTO + bytes(2**20) + bytes([number])), (f"{number}.cls", b"cat")]
    (tmp_path / name).write_bytes(gzip.compress(tar(tmp_path / "source", members).read_bytes(), 9))
    (tmp_path / "source").unlink()
    assert (tmp_path / name).stat().st_size < 2**19
    with pytest.raises(InvalidData, match=r"must unpack to at most \d+\.\d MB, .* Received: more\. .*unpack it"):
        table_of(tmp_path / name, tmp_path)
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_a_tar_file_that_is_packed_in_another_way_is_not_unpacked(
    pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.tar").write_bytes(pack(tar(tmp_path / "source", [("a.jpg", bytes(10**8))]).read_bytes()))
    tracemalloc.start()
    with pytest.raises(InvalidData, match=r"a\.tar is no sound tar file"):
        table_of(tmp_path / "a.tar", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("content", [b"1" * 4_900, b"10 a=1234\n" * 490, b"10 aaaaaa\n" * 489 + b"10 aaa=aa\n"])
def test_long_headers_do_not_take_the_square_of_their_length(kind: bytes, content: bytes, tmp_path: Path) -> None:
    members = []
    for number in range(200):
        header = tarfile.TarInfo("x")
        header.type = kind
        members += [(header, content), (f"{number}.txt", b"cat")]
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar(tmp_path / "source", members).read_bytes()))
    began = time.process_time()
    with pytest.raises(InvalidData, match=r"a\.tar\.gz"):
        table_of(tmp_path / "a.tar.gz", tmp_path)
    assert time.process_time() - began < 30


def test_copies_leave_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tar(tmp_path / "a.tar", [("a.jpg", PHOTO), ("a.cls", b"cat")])
    monkeypatch.setattr("regraft.files.free_bytes", lambda _: 256 * 2**20)
    with pytest.raises(RegraftError, match=r"There is no room in .*raw: a photo of the source .* 268\.4 MB are free"):
        table_of(source, tmp_path)
    assert names_in(tmp_path) == ["a.tar"]


def test_of_a_sample_with_many_photos_one_is_held_at_most(tmp_path: Path) -> None:
    large = bytes(2**20)
    members = [(f"a.{kind}", large) for kind in ("jpg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")]
    source = tar(tmp_path / "a.tar", [*members, ("a.cls", b"cat"), ("b.jpg", PHOTO), ("b.cls", b"cat")])
    tracemalloc.start()
    converted, listed = table_of(source, tmp_path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(listed), converted.left_out.lines()) == (1, ["1 with several photos: a.tar: a"])
    assert most < 5 * len(large)


@pytest.mark.parametrize("image", [{"bytes": "text", "path": None}, {"bytes": None, "path": 7}, {"bytes": 7}])
def test_images_of_hugging_face_that_are_neither_bytes_nor_a_path_are_left_out(
    image: dict[str, object], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"image": [image], "label": ["cat"]}), tmp_path / "a.parquet")
    with pytest.raises(InvalidData, match=r"1 of which the source names no photo: a\.parquet: row 0"):
        table_of(tmp_path / "a.parquet", tmp_path)


@pytest.mark.parametrize("name", ["/data/a.jpg?X-Amz-Signature=pa55word", "u:pa55word@host/a.jpg", "h/a.jpg?pa55word"])
def test_a_path_that_may_hold_a_secret_is_left_out_and_not_shown(name: str, tmp_path: Path) -> None:
    converted, _ = table_of(coco(tmp_path / "a.json", **{name: ["cat"], "https://host/good.jpg": ["cat"]}), tmp_path)
    (line,) = converted.left_out.lines()
    assert line.endswith(": a.json: (not shown, since it may hold a password)")


def test_two_conversions_at_once_never_leave_a_table_without_its_photos_in_silence(tmp_path):
    one, other, left_out = PhotoFiles(Path(), tmp_path), PhotoFiles(Path(), tmp_path), LeftOut()
    listing = one.kept_if_listed(tmp_path / "a.csv")
    listing.__enter__()
    one.place(Record("a", "x", content=PHOTO), left_out)
    with other.kept_if_listed(tmp_path / "b.csv"):
        placed = other.place(Record("b", "x", content=OTHER), left_out)
        (tmp_path / "b.csv").write_text("b")
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(RegraftError, match="another conversion into"):
        listing.__exit__(None, None, None)
    assert placed
    assert (tmp_path / placed[0]).is_file()


def test_a_folder_at_the_name_of_a_copy_is_refused_before_there_is_a_table(tmp_path):
    (tmp_path / "photos" / f"{hashlib.sha256(PHOTO).hexdigest()}.jpg").mkdir(parents=True)
    with pytest.raises(RegraftError, match=r"is a folder\. Expected a photo"):
        PhotoFiles(Path(), tmp_path).place(Record("a", "x", content=PHOTO), LeftOut())
