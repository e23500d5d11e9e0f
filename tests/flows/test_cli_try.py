"""`regraft try`, as a person calls it; the page itself is opened in tests/test_try_in_browser.py."""

from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from regraft.reports.try_page import runtime
from tests.support.shipped_files import tiny_graph


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that runs `regraft try` in a folder that holds a model; no browser opens, and nothing is fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(runtime, "load_runtime", lambda cache, folder: runtime.WebRuntime("export{a as env};", b""))
    monkeypatch.setattr("webbrowser.open", lambda address: (tmp_path / "opened").write_text(address) > 0)
    onnx.save(tiny_graph(["a", "b"], {}), tmp_path / "model.onnx")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["try", *arguments])

    return run


def test_the_page_of_a_model_is_written_and_opened(call, tmp_path):
    done = call("model.onnx")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("try.html: ")
    assert "to be opened in any browser" in done.stdout
    assert (tmp_path / "opened").read_text() == (tmp_path / "try.html").as_uri()


def test_it_goes_where_one_says_and_stays_closed(call, tmp_path):
    assert call("model.onnx", "--output", "pages/a.html", "--no-open").exit_code == 0
    assert (tmp_path / "pages" / "a.html").read_text().startswith("<!doctype html>")
    assert not (tmp_path / "opened").exists()


def test_in_a_project_it_is_the_model_of_the_last_run_and_a_report(call, tmp_path, root):
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((root / name).read_text())
    done = call()
    assert done.exit_code == 1
    assert "models/model.onnx does not exist. Run the pipeline first" in done.stderr
    (tmp_path / "models").mkdir()
    (tmp_path / "model.onnx").rename(tmp_path / "models" / "model.onnx")
    assert call().stdout.startswith("reports/try.html: ")


def test_without_a_screen_no_browser_of_the_terminal_is_opened(call, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "There is no browser on this machine." in call("model.onnx").stdout
    assert not (tmp_path / "opened").exists()
