import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from regraft.core.errors import InvalidData
from regraft.photos.incoming import find_incoming


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos, in names only."""
    (tmp_path / "in" / "camera").mkdir(parents=True)
    for name in ("b.jpg", "camera/a.jpg", ".DS_Store"):
        (tmp_path / "in" / name).touch()
    return tmp_path / "in"


def test_all_files_of_a_folder_are_found_hidden_ones_left_out(folder: Path) -> None:
    found = find_incoming(folder)
    assert (found.folder, found.paths, found.refused) == (folder, ["b.jpg", "camera/a.jpg"], {})


def test_what_must_not_be_read_is_named_and_the_rest_is_found(folder: Path) -> None:
    (folder / "out.jpg").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "dvc.yaml").touch()
    found = find_incoming(folder)
    assert found.paths == ["b.jpg", "camera/a.jpg"]
    assert found.refused == {
        "dvc.yaml": "it has a name that DVC or git obeys",
        "out.jpg": "it leads outside -> /etc/hostname",
        "pipe.jpg": "it is no file (a named pipe)",
    }


def _as_csv(path: Path, table: pd.DataFrame) -> Path:
    table.to_csv(path.with_suffix(".csv"), index=False)
    return path.with_suffix(".csv")


def _as_parquet(path: Path, table: pd.DataFrame) -> Path:
    table.to_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


@pytest.mark.parametrize("write", [_as_csv, _as_parquet])
def test_a_table_names_photos_relative_to_its_own_folder_and_none_outside_of_it(folder: Path, write: Callable) -> None:
    names = ["camera/a.jpg", "b.jpg", "b.jpg", "../secret.jpg", "/etc/passwd", r"..\secret.jpg", "gone.jpg"]
    found = find_incoming(write(folder / "list", pd.DataFrame({"site": "x", "path": names})))
    assert (found.folder, found.paths, found.is_named) == (folder, ["b.jpg", "camera/a.jpg", "gone.jpg"], True)
    assert list(found.refused) == ["../secret.jpg", "/etc/passwd", r"..\secret.jpg"]


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("list.csv", b"photo\na.jpg\n", r"with a column `path` of text.*Found: the columns photo"),
        ("list.csv", b"path\n\xff\n", r"CSV in UTF-8"),
        ("list.parquet", b"no Parquet", r"with a column `path` of text"),
        ("list.txt", b"a.jpg", r"list\.txt: expected a folder of photos, or a table"),
    ],
)
def test_another_table_is_refused(tmp_path: Path, name: str, contents: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(InvalidData, match=message):
        find_incoming(tmp_path / name)


@pytest.mark.parametrize("path", ["host/a.png?token=SECRET", "u:SECRET@host/a.png", "host/a.png%3Ftoken%3DSECRET"])
def test_a_path_of_a_table_that_carries_a_secret_is_refused_and_not_shown(tmp_path, path):
    (tmp_path / "list.csv").write_text(f"path\n{path}\na.png\n")
    incoming = find_incoming(tmp_path / "list.csv")
    assert incoming.paths == ["a.png"]
    assert [*incoming.refused] == ["path 1 (not shown, since it may hold a password)"]
