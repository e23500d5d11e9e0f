import getpass
import json
import os
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.files import read_json, sha256_of, write_json
from regraft.core.params_file import load_params
from tasks.runs import receipts
from tasks.runs.receipts import find_run, last_run, read_receipt, runs_with_receipt, work_of_last_run, write_receipt
from tests.support.run_receipts import STAGES, git, record_of, versions, write_project, write_results

QUIET = ["Up to date"] * 4


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project outside of git, as the current folder."""
    write_project(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(receipts, "installed_versions", versions)
    return tmp_path / "project"


def _params() -> Params:
    return load_params(Path("params.yaml"))


def _receipt(number: int = 0, *arguments: str) -> dict:
    return read_json(write_receipt(_params(), record_of(number, *arguments)))


def test_a_receipt_says_what_went_in_what_came_out_and_what_was_decided(project):
    receipt = _receipt()
    assert (receipt["name"], receipt["words"], receipt["started_by"]) == ("Promoted", "It is good.", "retrain-nightly")
    assert receipt["stages"][1] == {"name": "validate_data", "outcome": "Ran", "seconds": 1.2}
    assert receipt["data"] == {"path": "data/raw", "md5": "a" * 32 + ".dir", "size": 82775, "files": 301}
    validated = receipt["locked"]["validate_data"]
    assert validated["writes"] == {"build/manifest.parquet": {"md5": "a" * 32, "size": 83699}}
    assert (validated["code"], validated["libraries"]) == ({"tasks.validate_data": 1234}, {"numpy": 2.1})
    assert receipt["model"] == sha256_of(project / "models" / "model.onnx")
    assert receipt["params"] == _params().model_dump(mode="json")
    assert {"python", "numpy", "tensorflow", "onnxruntime"} <= set(receipt["versions"])


def test_a_receipt_has_sorted_keys_and_one_value_a_line(project):
    text = write_receipt(_params(), record_of(0)).read_text()
    receipt = json.loads(text)
    assert text == json.dumps(receipt, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_a_receipt_names_no_path_user_or_host_of_this_machine(project):
    user, host = getpass.getuser(), socket.gethostname()
    words = f"Approved by {user} on {host}: better. See {project}/reports, and {Path.home()}/.cache."
    receipt = _receipt(0, "Promoted", words)
    assert receipt["words"] == "Approved: better. See ./reports, and ~/.cache."
    assert str(project) not in json.dumps(receipt)


def test_a_run_before_which_nothing_ever_ran_has_a_receipt(project):
    (project / "dvc.lock").unlink()
    (project / "data" / "raw.dvc").unlink()
    receipt = _receipt(0, "Failed", "There are no photos.", "Failed")
    assert (receipt["data"], receipt["locked"], receipt["previous"]) == (None, {}, None)


def test_a_run_that_did_nothing_adds_no_receipt_and_says_which_tells_of_it(project):
    first = write_receipt(_params(), record_of(0))
    quiet = record_of(1, "Already in production", "Nothing to do.", *QUIET)
    assert write_receipt(_params(), quiet) == first
    assert write_receipt(_params(), replace(quiet, run=record_of(2).run, stages=())) == first
    assert runs_with_receipt(Path("receipts")) == [record_of(0).run]


def test_a_run_that_did_nothing_after_dvc_repro_by_hand_has_a_receipt_with_its_model(project):
    write_receipt(_params(), record_of(0))
    write_results(project, "b")
    receipt = _receipt(1, "Completed", "Nothing to do.", *QUIET)
    assert receipt["model"] == sha256_of(project / "models" / "model.onnx")
    assert receipt["previous"] == record_of(0).run


def test_a_model_that_dvc_lock_does_not_know_is_not_that_of_the_run(project):
    (project / "models" / "model.onnx").write_text("edited by hand")
    assert _receipt()["model"] is None


def test_the_figures_on_test_photos_are_those_of_this_run(project):
    test = {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "images": 40}
    write_json(project / "reports" / "metrics.json", {"test": test | {"log_loss": 0.3}})
    assert _receipt(0)["test"] == test
    assert _receipt(1, "Failed", "No.", "Recorded", "Ran", "Ran", "Failed")["test"] is None


def test_outside_of_git_a_receipt_says_why_there_is_no_snapshot(project):
    assert _receipt()["git"]["problem"].startswith("`git rev-parse` failed: fatal: not a git repository")


def test_in_git_a_receipt_names_the_revision_and_the_snapshot(project, monkeypatch):
    monkeypatch.delenv("GIT_DIR", raising=False)
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "begin")
    receipt = _receipt()
    assert receipt["git"]["revision"] == git(project, "rev-parse", "HEAD")
    assert receipt["git"]["snapshot"] == git(project, "rev-parse", f"refs/regraft/runs/{receipt['run']}^")


def test_a_run_that_was_killed_has_a_receipt_and_no_snapshot(project):
    receipt = _receipt(0, "Crashed", "It was killed.")
    assert (receipt["name"], receipt["git"]["problem"]) == ("Crashed", "it was killed before it could make one.")


def test_what_a_run_says_at_length_or_in_letters_of_a_terminal_can_be_read_again(project):
    path = write_receipt(_params(), record_of(0, "Failed", "first\n\x1b[2J" + "x" * 20_000))
    words = read_receipt(_params(), path.stem)["words"]
    assert words.startswith("first\n\\x1b[2Jxxx")


def test_a_damaged_receipt_does_not_keep_the_next_run_from_having_one(project):
    write_receipt(_params(), record_of(0)).write_text('{"run": ')
    assert _receipt(1, "Already in production", "", *QUIET)["previous"] == record_of(0).run


def test_a_disk_without_room_is_an_error_of_regraft(project):
    (project / "receipts").mkdir(mode=0o500)
    if os.access(project / "receipts", os.W_OK):
        shutil.rmtree(project / "receipts")
        (project / "receipts").write_text("")
    with pytest.raises(RegraftError, match="receipts"):
        write_receipt(_params(), record_of(0))


def test_what_the_last_run_did_is_known_whether_it_has_a_receipt_or_not(project):
    assert last_run() is None
    write_receipt(_params(), record_of(0))
    write_receipt(_params(), record_of(1, "Already in production", "Nothing to do.", *QUIET))
    last = last_run()
    assert last is not None
    assert (last["run"], last["stages"][1]["outcome"]) == (record_of(1).run, "Up to date")


def test_the_work_of_the_last_run_is_not_that_of_a_dvc_repro_by_hand_after_it(project):
    assert work_of_last_run() is None
    write_receipt(_params(), record_of(0))
    assert work_of_last_run() == dict(zip(STAGES, ["Recorded", "Ran", "Ran", "Ran"], strict=True))
    os.utime("dvc.lock", (time.time() + 5, time.time() + 5))
    assert work_of_last_run() is None


def test_a_run_is_found_by_its_name_its_beginning_and_its_place_from_the_end(project):
    for number in range(3):
        write_receipt(_params(), record_of(number, "Failed"))
    runs = [record_of(number).run for number in range(3)]
    params = _params()
    assert [find_run(params, wanted) for wanted in (None, "-1", "-3", runs[1], "20261127")] == [
        runs[2],
        runs[2],
        runs[0],
        runs[1],
        runs[1],
    ]


@pytest.mark.parametrize("wanted", ["-4", "2026", "../x"])
def test_a_run_that_is_not_there_or_not_the_only_one_is_an_error_that_names_runs(project, wanted):
    for number in range(3):
        write_receipt(_params(), record_of(number, "Failed"))
    with pytest.raises(RegraftError, match=record_of(2).run):
        find_run(_params(), wanted)


@pytest.mark.parametrize("text", ["stages: {a: {deps: [1]}}", "\0", "a: ["])
def test_a_damaged_dvc_lock_costs_no_receipt(project, text):
    (project / "dvc.lock").write_text(text)
    (project / "data" / "raw.dvc").write_text(text.replace("stages", "outs"))
    assert _receipt(0, "Failed")["locked"] == {}
