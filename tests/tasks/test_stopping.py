"""Ctrl-C and SIGTERM: one line that says where, no traceback, and the exit status that the shell expects."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.stopping import Terminated, raise_if_stopped, terminable, undisturbed

WORKS = """\
import time
from tasks.progress import terminal_progress
from tasks.project import readable_errors
with readable_errors("retrain"), terminal_progress("fine_tune") as progress:
    progress("epochs")(3, 10)
    print("works", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_stops_a_command_reads_one_line(root: Path, number: signal.Signals, status: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORKS], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "works\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said.strip()) == (status, "Stopped in fine_tune (3 of 10 epochs). Run again to go on.")


def test_sigterm_is_raised_where_nobody_else_handles_it_and_only_there() -> None:
    with pytest.raises(Terminated), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert heard == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_library_that_catches_everything_does_not_go_on(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("tasks.stopping._AGAIN_SECONDS", 0.2)
    caught = []

    def convert() -> None:
        for _ in range(2):
            try:
                os.kill(os.getpid(), number) if not caught else time.sleep(10)
            except:  # noqa: E722
                caught.append(time.monotonic())
        raise_if_stopped()

    with pytest.raises(KeyboardInterrupt), terminable():
        convert()
    assert caught[1] - caught[0] < 5


def test_a_second_sigterm_does_not_cut_off_what_keeps_the_work() -> None:
    kept = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            kept.append("rows")

    with pytest.raises(Terminated), terminable():
        work()
    assert kept == ["rows"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_does_not_cut_the_end_of_a_run_in_half(number: signal.Signals) -> None:
    before, done = signal.getsignal(number), []
    with undisturbed():
        os.kill(os.getpid(), number)
        done.append("receipt")
    assert (done, signal.getsignal(number)) == (["receipt"], before)
