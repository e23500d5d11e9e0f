import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from regraft.core.errors import RegraftError
from tasks.progress import terminal_progress
from tasks.stage_limits import within_hours

HALF_A_SECOND = 0.5 / 3600


def train() -> None:
    """Hang, in the third epoch."""
    with terminal_progress("fine_tune") as progress, within_hours("fine_tune", HALF_A_SECOND):
        progress("epochs")(3, 10)
        time.sleep(20)


def convert_with_a_library_that_catches_everything() -> None:
    with within_hours("export_onnx", HALF_A_SECOND), suppress(BaseException):
        time.sleep(20)


def test_what_ends_in_time_is_left_alone():
    handler = signal.getsignal(signal.SIGALRM)
    with within_hours("fine_tune", HALF_A_SECOND):
        pass
    time.sleep(0.6)
    assert signal.getsignal(signal.SIGALRM) == handler


def test_what_takes_longer_is_stopped_and_the_message_says_where_it_was():
    with pytest.raises(RegraftError, match=r"\(3 of 10 epochs\), at tests/tasks/test_stage_limits.py:\d+\. What"):
        train()


def test_no_library_that_catches_everything_goes_on():
    began = time.monotonic()
    with pytest.raises(RegraftError, match="stage_hours"):
        convert_with_a_library_that_catches_everything()
    assert time.monotonic() - began < 10


def test_the_process_ends_where_nothing_of_python_gets_through():
    code = (
        "import itertools; from tasks import stage_limits; stage_limits._GRACE_SECONDS = 0.5\n"
        "with stage_limits.within_hours('train_head', 0.5 / 3600): sum(itertools.repeat(0, 10**12))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, "Timeout" in ended.stderr) == (1, True)
