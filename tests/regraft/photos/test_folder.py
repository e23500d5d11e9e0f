import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from regraft.core.errors import InvalidData
from regraft.photos.folder import check_folder, open_inside, walk

NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with one photo."""
    (tmp_path / "raw/cat").mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(tmp_path / "raw/cat/a.png")
    return tmp_path / "raw"


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A data folder that another user reaches; pytest's own is for one user only."""
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary).chmod(0o755)
        (Path(temporary) / "raw/cat").mkdir(parents=True)
        yield Path(temporary) / "raw"


@pytest.fixture
def as_nobody() -> Iterator[Callable[[], None]]:
    """Give up root's right to read everything, until the test ends; who is not root has none to give up."""
    if os.geteuid():
        yield lambda: None
        return
    yield lambda: os.seteuid(NOBODY)
    os.seteuid(0)


def refusal(folder: Path) -> str:
    """What the check says; in a thread, so that one that waits for a pipe fails and does not hang."""
    said: list[str] = []

    def check() -> None:
        try:
            check_folder(folder)
        except InvalidData as error:
            said.append(str(error))

    thread = threading.Thread(target=check, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits"
    assert said, "nothing was refused"
    return said[0]


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


# How each is made, what is shown of it, under which words, and what is to be done.
REFUSED: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "pipe": (os.mkfifo, "x (a named pipe)", "waited for without end", "Remove each."),
    "link to a device": (link("/dev/zero"), "x -> /dev/zero", "leave the data folder", "Replace each by a copy"),
    "link to nothing": (link("gone"), "x -> gone", "lead nowhere", "Remove each."),
    "link to a folder": (link("."), "x -> .", "links to folders", "Remove each, or replace it by a copy."),
    "link far out": (link("/etc/passwd"), "x -> /etc/passwd", "leave the data folder", "Replace each by a copy"),
}


@pytest.mark.parametrize("place", ["cat/x", ".hidden/x"])
@pytest.mark.parametrize("what", REFUSED)
def test_what_no_program_should_read_is_named_with_what_it_is_and_what_to_do(folder, what, place):
    make, shown, kind, remedy = REFUSED[what]
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path.parent / "a.png")
    make(path)
    (line,) = refusal(folder).splitlines()[1:]
    assert f"(1): {place[:-1]}{shown}. {remedy}" in line
    assert kind in line


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_a_name_that_is_no_text_is_shown_escaped(folder, make):
    make(folder / os.fsdecode(b"caf\xe9.png"))
    assert r"names that are not UTF-8 (1): caf\udce9.png. Rename each." in refusal(folder)


def test_names_in_messages_cannot_speak_to_the_terminal(folder):
    os.mkfifo(folder / "cat/\x1b[2J\n\u202e.png")
    message = refusal(folder)
    assert r"cat/\x1b[2J\n\u202e.png (a named pipe)" in message
    assert message.replace("\n", "").isprintable()


@pytest.mark.parametrize("kind", ["file", "folder", "hidden folder", "link"])
def test_what_one_may_not_read_is_named(open_to_all, as_nobody, kind):
    path = open_to_all / {"hidden folder": "cat/.x", "link": "cat/b"}.get(kind, "cat/x")
    path.mkdir() if "folder" in kind else path.touch()
    if kind == "link":
        (open_to_all / "cat/x").symlink_to("b")
    path.chmod(0)
    as_nobody()
    message = refusal(open_to_all)
    assert "files and folders that cannot be read" in message
    assert f"{path.relative_to(open_to_all)} (Permission denied)" in message
    assert "Make each readable" in message


OBEYED = ["dvc.yaml", "dvc.lock", "x.dvc", ".dvc", ".dvcignore", ".git", ".hg", "DVC.yaml", ".DvcIgnore", "a.DVC"]


@pytest.mark.parametrize("place", ["", ".hidden/"])
@pytest.mark.parametrize("name", [*OBEYED, ".d\u200dvc", "dvc\u200c.yaml", ".g\u200bit"])
def test_what_dvc_would_obey_is_refused_by_name(folder, name, place):
    write(folder / f"{place}{name}")
    message = refusal(folder)
    assert "it would run commands, or leave photos out" in message
    assert f"(1): {place}" in message


def test_the_names_are_those_that_dvc_knows():
    """If another DVC takes further names for its own, they belong into the list."""
    from dvc.dvcfile import DVC_FILE_SUFFIX, LOCK_FILE, PROJECT_FILE
    from dvc.ignore import DvcIgnore, DvcIgnoreFilter
    from dvc.repo import Repo

    assert (PROJECT_FILE, LOCK_FILE, DVC_FILE_SUFFIX) == ("dvc.yaml", "dvc.lock", ".dvc")
    assert (DvcIgnore.DVCIGNORE_FILE, Repo.DVC_DIR) == (".dvcignore", ".dvc")
    constants = [value for value in DvcIgnoreFilter.__init__.__code__.co_consts if isinstance(value, str)]
    assert {value.strip("/") for value in constants if value.startswith(".")} == {".git", ".hg"}


def test_folders_deeper_than_dvc_walks_are_named(folder):
    (folder / "/".join(["d"] * 100)).mkdir(parents=True)
    check_folder(folder)
    (folder / "/".join(["d"] * 102)).mkdir(parents=True)
    assert "more than 100 folders deep" in refusal(folder)


def test_ordinary_things_are_not_refused(folder):
    for name in ("Icon\r", "Thumbs.db", ".DS_Store", ".gitignore", "a.dvcx", "dvc.yaml.txt", "mydvc.yaml", "a\nb.png"):
        write(folder / "cat" / name)
    (folder / "cat/b.png").symlink_to("a.png")
    (folder / "empty").mkdir()
    assert {"cat/a.png", "cat/b.png", "cat/Icon\r"} < set(walk(folder))


# Between the walk and the reading.


def becomes_a_pipe(path: Path, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def becomes_a_link_out(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(outside / "a.png")


def its_folder_becomes_a_link_out(path: Path, outside: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(outside)


@pytest.mark.parametrize("change", [becomes_a_pipe, becomes_a_link_out, its_folder_becomes_a_link_out])
def test_what_took_the_place_of_a_file_is_not_read(folder, tmp_path, change):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.png").write_bytes((folder / "cat/a.png").read_bytes())
    change(folder / "cat/a.png", tmp_path / "outside")
    with pytest.raises(OSError, match=r"not a file|out of the data folder"):
        open_inside(folder, "cat/a.png")


def test_a_pipe_that_comes_after_the_first_look_is_not_waited_for(folder, monkeypatch):
    os.mkfifo(folder / "pipe")
    photo = (folder / "cat/a.png").stat()
    monkeypatch.setattr(Path, "stat", lambda path: photo)
    with pytest.raises(OSError, match="not a file"):
        open_inside(folder, "pipe")
