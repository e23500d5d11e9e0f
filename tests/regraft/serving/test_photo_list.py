"""Which photos are meant, whatever lies in their folder."""

import os
import socket
from io import BytesIO
from pathlib import Path

import pytest

from regraft.serving.photo_files import Listed, Unreadable, list_photos, with_pixels


def listed(*paths: Path | str, standard_input: bytes = b"", end: bytes = b"\n") -> list[Listed]:
    return list(list_photos(map(str, paths), BytesIO(standard_input), end=end))


def problem_of(path: Path | str) -> str:
    with pytest.raises(Unreadable) as raised:
        with_pixels(str(path), lambda pixels: pixels)
    return str(raised.value)


def names(found: list[Listed], folder: Path) -> list[str]:
    return [os.path.relpath(each.path, folder) for each in found]


def test_a_folder_gives_all_files_in_it_by_name_and_leaves_out_hidden_folders(tmp_path):
    for name in ("b.jpg", "a.jpg", "c/d.jpg", ".trash/e.jpg", "__MACOSX/f.jpg", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = listed(tmp_path)
    assert names(found, tmp_path) == [".hidden.jpg", "a.jpg", "b.jpg", "c/d.jpg"]
    assert not any(each.is_named for each in found)
    assert listed(tmp_path / ".trash") == [Listed(str(tmp_path / ".trash" / "e.jpg"), is_named=False)]


def test_a_link_is_followed_and_a_circle_of_links_ends(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").touch()
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "self").symlink_to("self")
    found = listed(tmp_path / "photos")
    assert names(found, tmp_path / "photos") == ["self", "more/a.jpg"]
    assert problem_of(found[0].path) == "Too many levels of symbolic links"


def test_what_is_no_file_is_named_and_not_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a_pipe.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    monkeypatch.chdir(tmp_path)  # a socket's path has a hundred letters at most
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind("socket.jpg")
        problems = [problem_of(each.path) for each in listed(".")]
    assert problems == ["it is a named pipe", "No such file or directory", "it is a socket"]
    assert listed("")[0].problem == "the path is empty"
    assert [problem_of(each.path) for each in listed("/dev/zero", "nowhere.jpg", "a\0b", "x" * 300)] == [
        "it is a device",
        "No such file or directory",
        "a path cannot have a zero byte in it",
        "File name too long",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_one_may_not_read_is_named(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "open.jpg").touch()
    found = listed(tmp_path)
    assert [each.problem for each in found] == [None, "Permission denied"]


def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_goes_on(tmp_path, monkeypatch):
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").touch()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert listed(tmp_path) == [
        Listed(str(tmp_path / "closed"), problem="Permission denied"),
        Listed(str(tmp_path / "open" / "a.jpg"), is_named=False),
    ]


@pytest.mark.parametrize(
    ("contents", "end"),
    [
        (b"a.jpg\nb.jpg\n", b"\n"),
        (b"\xef\xbb\xbfa.jpg\r\n\r\nb.jpg", b"\n"),  # of an editor on Windows
        (b"a.jpg\0b.jpg\0", b"\0"),
    ],
)
def test_a_list_on_standard_input_has_a_path_a_line(tmp_path, monkeypatch, contents, end):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").touch()
    found = listed("-", standard_input=contents, end=end)
    assert found == [Listed("a.jpg"), Listed("b.jpg")]


def test_a_list_may_name_folders_and_be_empty(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert listed("-", standard_input=str(tmp_path).encode()) == [Listed(str(tmp_path / "a.jpg"), is_named=False)]
    assert listed("-") == []


def test_names_of_any_bytes_become_text(tmp_path):
    for name in (b"a\nb.jpg", b"a\xffb.jpg"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    found = listed(tmp_path)
    assert [each.problem for each in found] == [None, None]
    assert [each.text.rpartition("/")[2] for each in found] == ["a\nb.jpg", "a\\xffb.jpg"]
    contents = b"\0".join(os.fsencode(each.path) for each in found)
    assert [each.path for each in listed("-", standard_input=contents, end=b"\0")] == [each.path for each in found]
