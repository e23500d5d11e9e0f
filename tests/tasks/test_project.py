"""How a command ends where something outside of the code has to change."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from regraft.core.errors import RegraftError
from tasks.project import enter_project, readable_errors


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_ends_a_command_with_the_file_and_what_to_do(number: int, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="1"), readable_errors("train_head"):
        raise OSError(number, "No space left", "reports/head.json")
    said = capsys.readouterr().err
    assert "train_head stopped: there is no room for reports/head.json (No space left). Free some" in said


def test_a_database_that_finds_the_disk_full_says_so_too(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with sqlite3.connect(tmp_path / "database") as database:
        database.execute("PRAGMA max_page_count = 2")
        with pytest.raises(SystemExit, match="1"), readable_errors("retrain"):
            database.execute("CREATE TABLE rows AS SELECT zeroblob(100000)")
    assert "there is no room for what DVC remembers" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_what_one_may_not_write_is_named_and_what_to_do(number: int, capsys: pytest.CaptureFixture) -> None:
    path = Path.cwd() / "models" / "head.npz"
    with pytest.raises(SystemExit, match="1"), readable_errors("keras"):
        raise OSError(number, "it is refused", str(path))
    assert (
        "keras stopped: models/head.npz cannot be written or read (it is refused). Make it" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "name", ["params.yaml", "dvc.lock", ".dvc/config", ".dvc/tmp/lock", ".dvc/tmp/regraft/a/b.json"]
)
def test_a_pipe_in_the_place_of_a_file_of_dvc_or_of_runs_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("params.yaml", "dvc.yaml"):
        (tmp_path / each).touch()
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    os.mkfifo(name)
    with pytest.raises(RegraftError, match=rf"{name} must be a file, and is a named pipe"):
        enter_project()
