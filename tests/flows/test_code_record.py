"""Code and libraries as inputs of stages: what changed of them reruns what it decides, and no result is recorded under
code that did not make it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.toy import COMMANDS, DVC, FLOW, PARAMS, STAGES, Toy

pytestmark = pytest.mark.flow
each_runner = pytest.mark.parametrize("runner", [DVC, FLOW])
SECOND_ALONE = ["dvc", "repro", "--force", "--single-item", "second"]
UP_TO_DATE = "Data and pipelines are up to date."

CHANGES: dict[str, tuple[Callable[[Toy], None], list[str]]] = {
    "a comment": (lambda toy: toy.write("tasks/second.py", toy.read("tasks/second.py") + "\n# a comment\n"), []),
    "a module that no stage imports": (lambda toy: toy.write("regraft/new.py", "new = 1\n"), []),
    "the seam": (lambda toy: toy.write("tasks/stage.py", toy.read("tasks/stage.py") + "\nnew = 1\n"), []),
    "a module that all import": (
        lambda toy: toy.write("regraft/core/config.py", toy.read("regraft/core/config.py") + "\nnew = 1\n"),
        STAGES,
    ),
    "a new import": (
        lambda toy: toy.write("tasks/third.py", "import regraft.converters.demo_data\n" + toy.read("tasks/third.py")),
        ["third"],
    ),
}


def test_exactly_the_stages_that_a_change_of_code_decides_run(finished_toy: Toy) -> None:
    for change, (make_change, affected) in CHANGES.items():
        make_change(finished_toy)
        finished_toy.forget_runs()
        ran = finished_toy.bring_up_to_date(FLOW)
        assert (ran.status, finished_toy.runs) == (0, affected), f"{change}: {ran.output}"
    assert finished_toy.succeed("dvc", "status").output.strip() == UP_TO_DATE


def test_exactly_the_stages_that_a_change_of_code_decides_run_under_dvc(finished_toy: Toy) -> None:
    for change in ("a comment", "the seam", "a new import"):
        CHANGES[change][0](finished_toy)
    ran = finished_toy.bring_up_to_date(DVC)
    assert (ran.status, finished_toy.runs) == (0, ["third"]), ran.output
    assert finished_toy.succeed("dvc", "status").output.strip() == UP_TO_DATE


def test_a_new_lock_file_and_what_it_installs_reruns_what_the_library_decides_under_dvc(
    finished_toy: Toy, another_numpy: dict[str, str]
) -> None:
    finished_toy.write("requirements.lock", finished_toy.read("requirements.lock") + "# as after an upgrade\n")
    assert "requirements.lock" in finished_toy.succeed("dvc", "status").output
    run = finished_toy.succeed(*COMMANDS[DVC], **another_numpy)
    assert "-> 9.9 changed: second runs again" in run.output
    assert finished_toy.runs == ["second"]  # and its output is the same, so the third has nothing to do


def test_a_library_that_was_installed_by_hand_reruns_what_it_decides_in_the_flow_once(
    finished_toy: Toy, another_numpy: dict[str, str]
) -> None:
    run = finished_toy.succeed(*COMMANDS[FLOW], **another_numpy)
    assert run.outcomes == {"first": "Up to date", "second": "Ran", "third": "Up to date"}
    assert finished_toy.succeed("dvc", "status").output.strip() == UP_TO_DATE
    run = finished_toy.succeed(*COMMANDS[FLOW], **another_numpy)
    assert (run.stdout.splitlines()[-2], set(run.outcomes.values())) == ("Up to date", {"Up to date"})


def test_a_library_that_was_installed_by_hand_stops_the_first_stage_that_it_decides_under_dvc_and_what_to_do_helps(
    finished_toy: Toy, another_numpy: dict[str, str]
) -> None:
    finished_toy.set_param(PARAMS["second"], 0.21)
    lock = finished_toy.read("dvc.lock")
    run = finished_toy.run(*COMMANDS[DVC], **another_numpy)
    assert "second stopped: build/provenance.json is older than what second runs: numpy" in run.output
    assert "-> 9.9 changed since. Run `dvc repro --force --single-item record_code`" in run.output
    assert (run.status != 0, finished_toy.runs, finished_toy.read("dvc.lock")) == (True, [], lock)
    finished_toy.succeed("dvc", "repro", "--force", "--single-item", "record_code", **another_numpy)
    finished_toy.succeed(*COMMANDS[DVC], **another_numpy)
    assert finished_toy.runs == ["second", "third"]


def test_a_single_stage_with_a_stale_record_of_its_code_stops(finished_toy: Toy) -> None:
    finished_toy.write("tasks/second.py", finished_toy.edited_module("second"))
    lock = finished_toy.read("dvc.lock")
    run = finished_toy.run(*SECOND_ALONE)
    assert "second stopped: build/provenance.json is older than what second runs: tasks.second changed" in run.output
    assert (run.status != 0, finished_toy.runs, finished_toy.read("dvc.lock")) == (True, [], lock)


def test_a_comment_that_is_written_while_a_stage_runs_does_not_stop_it(finished_toy: Toy) -> None:
    finished_toy.set_param(PARAMS["second"], 0.21)
    text = finished_toy.read("tasks/second.py") + "\n# a comment\n"
    finished_toy.order("second", "edit", ["tasks/second.py", text])
    run = finished_toy.bring_up_to_date(DVC)
    assert (run.status, finished_toy.runs) == (0, ["second", "third"]), run.output


@each_runner
def test_a_library_that_is_installed_while_a_stage_runs_stops_it(
    finished_toy: Toy, another_numpy: dict[str, str], runner: str
) -> None:
    metadata = Path(another_numpy["PYTHONPATH"]) / "numpy-9.9.dist-info" / "METADATA"
    finished_toy.succeed(*COMMANDS[FLOW], **another_numpy)
    finished_toy.forget_runs()
    finished_toy.set_param(PARAMS["second"], 0.21)
    finished_toy.order("second", "edit", [str(metadata), metadata.read_text().replace("9.9", "9.10")])
    lock = finished_toy.read("dvc.lock")
    run = finished_toy.run(*COMMANDS[runner], **another_numpy)
    assert "numpy 9.9 -> 9.10 changed while second ran" in run.output
    assert (run.status != 0, finished_toy.read("dvc.lock")) == (True, lock)


def test_a_run_whose_code_was_edited_after_it_started_says_so(finished_toy: Toy) -> None:
    finished_toy.write("data/raw/durian.txt", "one durian")
    finished_toy.order("first", "edit", ["tasks/second.py", finished_toy.edited_module("second")])
    run = finished_toy.bring_up_to_date(FLOW)
    assert "tasks.second changed after this run was started" in run.output
    assert finished_toy.runs == ["first"]
