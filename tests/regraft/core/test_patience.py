"""What lies at an address is given up in bounded time, and only if nobody is there."""

import threading
import time
from collections.abc import Iterator

import pytest

from regraft.core import patience
from regraft.core.params_file import load_params
from regraft.core.patience import PatientFiles, set_patience, within_patience

FOR_EVER = 10.0  # seconds; no test waits so long


@pytest.fixture(autouse=True)
def _patience() -> Iterator[None]:
    """Tenths of a second instead of seconds."""
    before = patience._seconds[0]
    set_patience(0.3)
    yield
    set_patience(before)


class Slow:
    """A file system that answers small questions as it is told, and sends a file while it is asked two of them."""

    name = "slow"

    def __init__(self, *, is_there: bool) -> None:
        self.is_there, self.asked = is_there, 0

    def cat_file(self, path: str) -> bytes:
        """Read a small file."""
        if not self.is_there:
            time.sleep(FOR_EVER)
        self.asked += 1
        if path == "missing":
            raise FileNotFoundError
        return path.encode()

    def put_file(self, source: str, target: str, *, mode: str) -> str:
        """Send a file."""
        while self.asked < 2:
            time.sleep(0.01)
        return f"{source} {target} {mode}"

    def get_file(self, *_: str) -> None:
        """Fetch a file, and fail."""
        raise PermissionError


def patient(files: Slow) -> PatientFiles:
    return PatientFiles(files, lambda files: files.cat_file("missing"))


def test_a_question_without_an_answer_is_given_up_when_the_time_is_over():
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="timed out"):
        patient(Slow(is_there=False)).cat_file("pointer")
    with pytest.raises(TimeoutError, match="timed out"):
        within_patience(lambda: time.sleep(FOR_EVER))
    assert time.monotonic() - start < FOR_EVER


def test_a_transfer_that_is_slow_goes_on_as_long_as_somebody_answers():
    files = Slow(is_there=True)
    assert patient(files).put_file("a", "b", mode="c") == "a b c"
    assert files.asked == 2


def test_a_transfer_that_stands_still_is_given_up_though_somebody_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "_AHEAD", 0)
    monkeypatch.setattr(patience, "_SLOWEST", 10)
    source = tmp_path / "source"
    source.write_bytes(b"12345")  # half a second
    files = Slow(is_there=True)
    monkeypatch.setattr(files, "put_file", lambda *_: time.sleep(FOR_EVER))
    with pytest.raises(TimeoutError, match="timed out"):
        patient(files).put_file(str(source), "b")
    assert files.asked


def test_nothing_that_was_given_up_keeps_the_process_from_ending():
    with pytest.raises(TimeoutError):
        patient(Slow(is_there=False)).cat_file("pointer")
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "address")


def test_the_settings_say_how_long(root):
    params = load_params(root / "params.yaml")
    assert patience._seconds[0] == params.machine.remote_timeout
