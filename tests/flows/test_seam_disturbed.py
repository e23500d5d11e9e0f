"""Edits while a stage runs, kills, and two runs at once: dvc.lock never says what is not so, and nothing is lost."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tasks import safe_dvc
from tests.support.project import Command
from tests.support.toy import COMMANDS, DVC, FLOW, PARAMS, STAGES, Toy

pytestmark = pytest.mark.flow
each_runner = pytest.mark.parametrize("runner", [DVC, FLOW])
each_two_runners = pytest.mark.parametrize(("one", "other"), [(DVC, FLOW), (FLOW, DVC)], scope="module")
BY_HAND = ["python", "-m", "tasks.second"]

INPUTS: dict[str, tuple[str, str, Callable[[Toy], str]]] = {  # the stage that runs, the file and its new text
    "a data file": ("first", "data/raw/apple.txt", lambda _: "two apples"),
    "a param": ("second", "params.yaml", lambda toy: toy.params_with(PARAMS["second"], 0.31)),
    "the module": ("second", "tasks/second.py", lambda toy: toy.edited_module("second")),
    "another stage's output": ("second", "build/first.txt", lambda _: "edited by hand"),
}


@pytest.mark.parametrize(
    ("runner", "what"), [(DVC, "a data file"), (DVC, "the module"), *((FLOW, what) for what in INPUTS)]
)
def test_a_stage_whose_input_is_edited_while_it_runs_fails_and_leaves_dvc_lock_as_it_was(
    finished_toy: Toy, runner: str, what: str
) -> None:
    stage, path, text = INPUTS[what]
    finished_toy.set_param(PARAMS[stage], {"first": 7, "second": 0.21}[stage])
    finished_toy.order(stage, "edit", [path, text(finished_toy)])
    lock = finished_toy.read("dvc.lock")
    run = finished_toy.bring_up_to_date(runner)
    assert f"changed while {stage} ran" in run.output
    assert (run.status != 0, finished_toy.read("dvc.lock")) == (True, lock)


def test_code_that_is_edited_before_its_stage_begins_is_used_by_the_next_run_at_the_latest(finished_toy: Toy) -> None:
    """A flow imports every stage when it starts, and a stage may begin hours later."""
    finished_toy.write("data/raw/durian.txt", "one durian")
    finished_toy.order("first", "edit", ["tasks/second.py", finished_toy.edited_module("second")])
    finished_toy.bring_up_to_date(FLOW)
    finished_toy.withdraw("first", "edit")
    finished_toy.bring_up_to_date(FLOW)
    assert "version 2" in finished_toy.read("build/second.txt")


@pytest.mark.parametrize(("killed", "runner"), [(DVC, FLOW), (FLOW, DVC)])
def test_after_a_kill_in_the_middle_of_a_stage_the_next_run_gives_the_same_result(
    new_toy: Toy, undisturbed: dict[str, str], killed: str, runner: str
) -> None:
    new_toy.start_and_stop_in("second", *COMMANDS[killed]).kill()
    new_toy.withdraw("second", "wait")
    run = new_toy.bring_up_to_date(runner)
    assert (run.status, new_toy.results) == (0, undisturbed), run.output


@each_runner
def test_after_kills_at_any_moment_the_next_run_gives_the_same_result(
    new_toy: Toy, undisturbed: dict[str, str], runner: str
) -> None:
    for moment in (0.4, 0.5, 0.65, 0.9):
        command = new_toy.start(*COMMANDS[runner])
        time.sleep(moment)
        command.kill()
    run = new_toy.bring_up_to_date(runner)
    assert (run.status, new_toy.results) == (0, undisturbed), run.output


def test_a_table_of_running_commands_that_cannot_be_read_is_begun_anew(finished_toy: Toy, tmp_path: Path) -> None:
    for runner in (DVC, FLOW):
        finished_toy.write(".dvc/tmp/rwlock", '{"write": {')
        (finished_toy.root / "build/third.txt").unlink()
        run = finished_toy.bring_up_to_date(runner)
        assert run.status == 0, run.output
    for table in ('{"write": {', "", "[]", '{"write": {"/a": 1}}', '{"read": {"/a": [{"pid": "1"}]}}'):
        (tmp_path / "rwlock").write_text(table)
        assert safe_dvc._running(tmp_path / "rwlock") == {}, table


def test_a_killed_command_blocks_nobody_though_another_process_has_its_number(finished_toy: Toy) -> None:
    """As after a restart of the machine or the container."""
    _say_that_second_is_written(finished_toy, os.getpid())
    os.utime(finished_toy.root / ".dvc/tmp/rwlock", (1e9, 1e9))
    run = finished_toy.bring_up_to_date(FLOW)
    assert run.status == 0, run.output


def test_a_killed_command_blocks_nobody_though_its_parent_takes_no_note(finished_toy: Toy) -> None:
    ended = subprocess.Popen(["true"])
    while psutil.Process(ended.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    _say_that_second_is_written(finished_toy, ended.pid)
    run = finished_toy.bring_up_to_date(DVC)
    assert (run.status, ended.wait()) == (0, 0), run.output


@each_runner
def test_a_command_that_runs_keeps_its_entry(finished_toy: Toy, runner: str) -> None:
    _say_that_second_is_written(finished_toy, os.getpid())
    run = finished_toy.bring_up_to_date(runner)
    assert (run.status != 0, "is busy, it is being blocked by" in run.output) == (True, True)


@pytest.mark.parametrize(("shell", "runner"), [("SHELL=/bin/bash", FLOW), ("--unset=SHELL", DVC)])
def test_a_stage_ends_with_the_dvc_that_is_killed_and_the_next_run_does_it_anew(
    new_toy: Toy, undisturbed: dict[str, str], shell: str, runner: str
) -> None:
    """Whether the shell that DVC starts a stage with waits for the stage or becomes it: without SHELL it waits."""
    command = new_toy.start_and_stop_in("second", "env", shell, *COMMANDS[DVC])
    children = psutil.Process(command.process.pid).children(recursive=True)
    os.kill(command.process.pid, signal.SIGKILL)
    command.process.wait()
    assert psutil.wait_procs(children, timeout=60)[1] == []
    new_toy.withdraw("second", "wait")
    run = new_toy.bring_up_to_date(runner)
    assert (run.status, new_toy.results) == (0, undisturbed), run.output


@dataclass(frozen=True)
class TwoRuns:
    """What became of a run that was in the middle of a stage when another one was started, and of the other one."""

    toy: Toy
    first: Command
    second: Command


@pytest.fixture(scope="module")
def two_runs(
    toys: Callable[..., Toy], kind: str, one: str, other: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TwoRuns]:
    """Start a run; when it is in the middle of a stage, start another one; let the first go on when that has ended."""
    toy = toys(kind).copy(tmp_path_factory.mktemp("toy"))
    first = toy.start_and_stop_in("second", *COMMANDS[one])
    second = toy.bring_up_to_date(other)
    toy.withdraw("second", "wait")
    assert first.status is not None
    yield TwoRuns(toy, first, second)
    toy.end()


@each_two_runners
def test_a_run_that_meets_another_one_is_told_why_it_is_refused(two_runs: TwoRuns) -> None:
    assert "is busy, it is being blocked by" in two_runs.second.output


@each_two_runners
def test_of_two_runs_at_once_each_stage_runs_once(two_runs: TwoRuns) -> None:
    assert two_runs.toy.runs == STAGES


def test_a_finished_stage_is_recorded_though_another_process_holds_the_lock_for_long(new_toy: Toy) -> None:
    """DVC itself gives up after three seconds, and a training of hours is lost."""
    run = new_toy.start_and_stop_in("third", *COMMANDS[FLOW])
    holder = _hold_lock(new_toy, seconds=4)
    new_toy.withdraw("third", "wait")
    assert holder.status == 0
    assert (run.status, "third" in new_toy.read("dvc.lock")) == (0, True), run.output


def test_a_stage_that_is_started_by_hand_twice_is_refused_the_second_time(finished_toy: Toy) -> None:
    finished_toy.start_and_stop_in("second", *BY_HAND)
    run = finished_toy.run(*BY_HAND)
    assert (run.status, "Traceback" in run.output) == (1, False)
    assert "second stopped: stage second is running in another process." in run.output


@pytest.fixture
def undisturbed(toys: Callable[..., Toy], kind: str) -> dict[str, str]:
    """What a run leaves behind when nothing happens to it."""
    return toys(kind, DVC).results


def _say_that_second_is_written(toy: Toy, pid: int) -> None:
    """Write it into DVC's table of running commands, and make the stage one that has to run."""
    toy.set_param(PARAMS["second"], 0.21)
    table = {"write": {str(toy.root / "build/second.txt"): {"pid": pid, "cmd": "dvc repro"}}, "read": {}}
    toy.write(".dvc/tmp/rwlock", json.dumps(table))


def _hold_lock(toy: Toy, seconds: float) -> Command:
    script = (
        "import time, zc.lockfile; lock = zc.lockfile.LockFile('.dvc/tmp/lock')\n"
        f"open('held', 'w').close(); time.sleep({seconds}); lock.close()"
    )
    command = toy.start("python", "-c", script)
    command.wait_until((toy.root / "held").exists, "it holds the lock")
    return command
