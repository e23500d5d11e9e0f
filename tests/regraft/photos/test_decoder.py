import errno
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

from regraft.photos.decoder import DecodeLimits, inspect
from regraft.photos.inspectors import Inspectors


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A small file that takes a second to decode."""
    path = tmp_path / "large.png"
    Image.new("RGB", (12_000, 12_000)).save(path)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.png"
    Image.new("RGB", (30, 20), (9, 80, 7)).save(path)
    return path


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """What opens it waits for ever."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def inspectors_running() -> list[psutil.Process]:
    """The processes that inspect; other tests may have left processes of other kinds."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has just ended
            found += [child] if "regraft.photos.inspector" in child.cmdline() else []
    return found


def crash_inspector(pipe: Path) -> threading.Thread:
    """Send SIGSEGV to the inspector as soon as it has opened the pipe."""

    def wait_and_crash() -> None:
        while True:
            try:
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError as error:
                if error.errno != errno.ENXIO:  # which means that no process has the pipe open for reading yet
                    raise
            time.sleep(0.05)
        inspectors_running()[0].send_signal(signal.SIGSEGV)
        os.close(writer)

    # A daemon: if the inspector never opens the pipe, the test fails and pytest still ends.
    thread = threading.Thread(target=wait_and_crash, daemon=True)
    thread.start()
    return thread


def test_a_process_finds_out_what_the_function_does(small, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with Inspectors(DecodeLimits(10**6, 20)) as inspectors:
        assert [inspectors.inspect(path) for path in (small, broken)] == [
            inspect(path, max_pixels=10**6) for path in (small, broken)
        ]


def test_a_file_that_takes_too_long_is_given_up_and_the_next_one_is_inspected(large, small):
    with Inspectors(DecodeLimits(10**9, 0.2)) as inspectors:
        with pytest.raises(TimeoutError, match=r"longer than 0\.2 s \(validate_data\.max_seconds\)"):
            inspectors.inspect(large)
        assert inspectors.inspect(small).problem is None


def test_a_crash_of_the_decoder_is_told_and_the_next_file_is_inspected(pipe, small):
    with Inspectors(DecodeLimits(10**6, 60)) as inspectors:
        crasher = crash_inspector(pipe)
        with pytest.raises(OSError, match=r"crashed on it \(SIGSEGV\)"):
            inspectors.inspect(pipe)
        crasher.join()
        assert inspectors.inspect(small).width == 30


@pytest.mark.parametrize("name", ["a\nb.png", 'a"b\\c.png', "ä ö.png"])
def test_any_name_reaches_the_process(small, tmp_path, name):
    small.rename(tmp_path / name)
    with Inspectors(DecodeLimits(10**6, 20)) as inspectors:
        assert inspectors.inspect(tmp_path / name).width == 30


def test_no_process_stays_behind_and_there_are_no_more_than_threads(small):
    with Inspectors(DecodeLimits(10**6, 20)) as inspectors:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(inspectors.inspect, [small] * 40))
        assert len(inspectors_running()) <= 2
    assert inspectors_running() == []


def test_who_stops_does_not_wait_for_a_file_that_takes_long(small):
    outcome: list[str] = []

    def inspect_small() -> None:
        try:
            inspectors.inspect(small)
        except OSError as error:
            outcome.append(str(error))

    with Inspectors(DecodeLimits(10**6, 60)) as inspectors:
        inspectors.inspect(small)
        inspectors._free[0].send_signal(signal.SIGSTOP)  # as if it decoded for a minute
        thread = threading.Thread(target=inspect_small)
        thread.start()
        while inspectors._free:
            time.sleep(0.01)
    thread.join(10)
    assert "SIGKILL" in outcome[0] or "canceled" in outcome[0].lower()  # killed in the middle, or before it began
