"""`regraft`, as a person calls it; what its flows do is told in test_retrain.py."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from regraft.production.registry import Production

COMMANDS = ["retrain", "promote", "report", "explain", "reproduce", "predict", "try", "score", "check-model", "keras"]
COMMANDS += ["table", "backbones", "store", "serve", "prefect", "pull"]
HEAVY = {"tensorflow", "keras", "prefect", "dvc", "pandas", "numpy", "pyarrow", "regraft"}
Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """A function that runs `regraft` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.fixture
def in_project(tmp_path: Path, root: Path) -> Path:
    """Makes a project of that folder, in which nothing has run."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((root / name).read_text())
    return tmp_path


def test_the_help_has_one_line_for_every_command(call: Call) -> None:
    lines = call("--help").stdout.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in lines] == COMMANDS
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


@pytest.mark.parametrize("arguments", [["--help"], ["retrain", "--help"], ["store", "--help"], ["retran"]])
def test_help_and_a_mistyped_command_import_nothing_heavy(root: Path, arguments: list[str]) -> None:
    script = (
        f"import atexit, json, sys; sys.argv = ['regraft', *{arguments}]\n"
        f"atexit.register(lambda: print(json.dumps(sorted({HEAVY} & set(sys.modules)))))\n"
        "from flows.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize(
    "command",
    [["retrain"], ["promote"], ["report"], ["keras"], ["backbones", "VGG16", "--compare"], ["table", "demo:digits"]],
)
def test_outside_a_project_a_command_says_where_to_run_it(call: Call, command: list[str]) -> None:
    done = call(*command)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.strip().startswith(f"{command[0]} stopped: run this in the project's root")


def test_a_command_of_another_checkout_is_refused(call: Call, in_project: Path) -> None:
    """DVC would record this folder's code with what the other's made."""
    (in_project / "tasks").mkdir()
    (in_project / "tasks/project.py").touch()
    done = call("retrain")
    assert (done.exit_code, "Run `python -m flows.cli` in its place" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retrain", "--nopromote"], "No such option: --nopromote"),
        (["promote", "--rollback", "--history"], "--candidates and --history exclude each other"),
        (["promote", "--rollback", "--force", "so"], "--candidates and --history exclude each other"),
        (["promote", "--candidate", "0123", "--rollback"], "--force takes a --candidate"),
        (["promote", "--to", "0123"], "--to goes with --rollback, --reason with --candidate"),
        (["store", "--verify", "--gc", "1"], "--verify, --gc and --compact exclude each other"),
        (["store", "--gc", "-1"], "Invalid value for '--gc'"),
        (["report", "--again"], "--only and --again go with --measure"),
        (["keras", "model.h5"], "expected a name that ends in .keras"),
        (["backbones", "VGG16", "--image-size", "7"], "Invalid value for '--image-size'"),
        (["backbones", "--compare"], "--compare needs names"),
    ],
)
def test_a_wrong_option_is_a_message_and_exit_status_2(call: Call, arguments: list[str], message: str) -> None:
    done = call(*arguments)
    assert (done.exit_code, message in " ".join(done.stderr.split())) == (2, True), done.stderr


def test_a_report_before_the_first_run_says_what_to_do(call: Call, in_project: Path) -> None:
    done = call("report")
    assert done.exit_code == 1
    assert done.stderr.strip() == "report stopped: there is no reports/metrics.json yet. Run `regraft retrain` first."


def test_the_history_of_an_empty_production_is_empty(call: Call, in_project: Path) -> None:
    assert (call("promote", "--history").exit_code, call("promote", "--history").stdout) == (0, "")


def test_every_backbone_is_listed(call: Call) -> None:
    done = call("backbones")
    assert (done.exit_code, "efficientnet_lite0" in done.stdout) == (0, True)


def test_an_unknown_backbone_is_a_message_and_an_exit_status(call: Call) -> None:
    done = call("backbones", "resnet")
    assert done.exit_code == 1
    assert done.stderr.strip().startswith("backbones stopped: backbone.name: expected a file that ends in .keras")


def test_a_backbone_is_described(call: Call) -> None:
    done = call("backbones", "efficientnet_lite0", "--image-size", "64")
    assert (done.exit_code, "64 pixels (pretrained at 224)" in done.stdout) == (0, True), done.output


def test_demo_data_goes_where_params_yaml_says(call: Call, in_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.converters.demo_data.write_digits", lambda folder, more: 7 if more else 0)
    assert call("table", "demo:more-digits").stdout == "7 new images in data/raw\n"


def test_demo_data_leaves_a_folder_that_holds_something_else(call: Call, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/mine.jpg").touch()
    done = call("table", "demo:digits", "--out", "raw")
    assert done.exit_code == 1
    assert "table stopped: raw holds something else already" in done.stderr


def test_a_rollback_is_no_failure_because_the_page_cannot_be_drawn(call: Call, in_project: Path) -> None:
    production = Production(in_project / "models" / "production")
    for contents in ("one", "two"):
        (in_project / contents).write_text(contents)
        production.promote(in_project / contents, contents, keep=5)
    (in_project / "reports").mkdir()
    (in_project / "reports" / "metrics.json").write_text("{}")
    done = call("promote", "--rollback")
    assert (done.exit_code, "rolled back" in done.stdout) == (0, True), done.stderr
    assert "report.html still shows what was in production before" in done.stderr
    assert production.model.read_text() == "one"


def test_the_history_tells_of_damage_and_of_what_repairs_it(call: Call, in_project: Path) -> None:
    production = Production(in_project / "models" / "production")
    (in_project / "one").write_text("one")
    production.promote(in_project / "one", "a reason", keep=5)
    production.model.unlink()
    done = call("promote", "--history")
    assert (done.exit_code, "a reason" in done.stdout) == (0, True)
    assert "`regraft promote --rollback` puts the last sound model back" in done.stderr
