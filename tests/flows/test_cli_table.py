"""`regraft table`, as a person calls it; what it makes of exports is told in tests/regraft/converters."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app

PICTURES = Path(__file__).parents[1] / "data" / "converters" / "pictures"


def test_the_table_of_a_project_is_written_where_its_photos_belong(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((root / name).read_text())
    done = CliRunner().invoke(app, ["table", str(PICTURES)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].startswith(
        "data/raw/labels.csv: 12 photos of 3 classes, from a folder of photos"
    )
    assert len((tmp_path / "data/raw/labels.csv").read_text().splitlines()) == 13


def test_what_is_no_source_is_a_message_and_exit_status_1(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["table", str(tmp_path / "gone"), "--out", str(tmp_path / "labels.csv")])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "table stopped: there is no " in done.stderr
