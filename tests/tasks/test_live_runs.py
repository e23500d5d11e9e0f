"""Runs of one folder: who lives, who is dead, and that one works at a time; all by locks of the kernel."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.runs import live_runs
from tasks.runs.live_runs import alive, ended_runs, forget, is_anybody_working, known_runs, new_live_run, only_run

RUNS = Path(".dvc/tmp/regraft/runs")
NIGHTLY = """\
import sys, time
from contextlib import ExitStack
from datetime import UTC, datetime
from tasks.runs.live_runs import alive, new_live_run, only_run
run = new_live_run("20261126T030000-abcdef", datetime(2026, 11, 26, 3, tzinfo=UTC), "retrain-nightly", None)
with alive(run), only_run(run, 0, print):
    print("works", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(live_runs, "_LOOK_SECONDS", 0.01)
    return tmp_path


@pytest.fixture
def nightly(root: Path, folder: Path):
    """Another process that works, until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", NIGHTLY],
        env=os.environ | {"PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "works\n"
        yield process
        process.kill()


def by_hand(name: str = "20261126T040000-000001") -> live_runs.LiveRun:
    return new_live_run(name, datetime(2026, 11, 26, 4, tzinfo=UTC), "hand", None)


def test_a_run_is_dead_only_when_its_process_is_gone(nightly: subprocess.Popen) -> None:
    assert ([run.run for run in known_runs()], ended_runs()) == (["20261126T030000-abcdef"], [])
    nightly.send_signal(signal.SIGKILL)
    nightly.wait()
    (dead,) = ended_runs()
    assert (dead.started_by, dead.pid, dead.ending) == ("retrain-nightly", nightly.pid, None)
    forget(dead.run)
    assert (ended_runs(), list(RUNS.iterdir())) == ([], [])


def test_who_waits_is_told_once_for_whom_and_then_works(nightly: subprocess.Popen) -> None:
    said: list[str] = []

    def say(words: str) -> None:
        said.append(words)
        assert nightly.stdin
        nightly.stdin.close()

    with only_run(by_hand(), 1, say):
        assert is_anybody_working()
    assert not is_anybody_working()
    assert len(said) == 1
    assert said[0].startswith(
        f"Waiting for the run started by retrain-nightly at 2026-11-26 03:00 UTC (process {nightly.pid})"
    )


def test_after_a_kill_the_next_run_works_at_once(nightly: subprocess.Popen) -> None:
    nightly.kill()
    nightly.wait()
    with only_run(by_hand(), 0, pytest.fail):
        assert is_anybody_working()


def test_a_run_that_ends_badly_lets_the_next_one_work() -> None:
    with pytest.raises(ZeroDivisionError), only_run(by_hand(), 0, pytest.fail):
        raise ZeroDivisionError
    assert not is_anybody_working()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "empty": lambda path: path.write_text(""),
    "no object": lambda path: path.write_text("[]"),
    "of another version": lambda path: path.write_text(path.read_text().replace('"pid"', '"number"')),
    "of another run": lambda path: path.write_text(path.read_text().replace("000002", "000003")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_forgotten_and_hides_no_other_run(damage: str) -> None:
    with ExitStack() as ended:
        for number in ("000001", "000002", "000004"):
            ended.enter_context(alive(by_hand(f"20261126T040000-{number}")))
    DAMAGE[damage](RUNS / "20261126T040000-000002.json")
    expected = ["20261126T040000-000001", "20261126T040000-000004"]
    assert ([run.run for run in known_runs()], [run.run for run in ended_runs()]) == (expected, expected)
    assert not (RUNS / "20261126T040000-000002.json").exists()
