"""The watcher: when it tells the server, and what it does where it cannot."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from flows.prefect_server import watch as watcher
from flows.prefect_server.watch import watch
from regraft.core.config import Params
from regraft.core.errors import Busy
from regraft.core.params_file import load_params
from regraft.photos.listing import Change

PATIENCE_SECONDS = 20.0


@pytest.fixture
def params(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Settings that watch an empty data folder of this test without patience."""
    params = load_params(root / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watcher, "_AWAY_SECONDS", 0.1)
    params.paths.raw.mkdir(parents=True)
    nights = params.nights.model_copy(update={"watch_seconds": 0.01, "settle_seconds": 0.1})
    return params.model_copy(update={"nights": nights})


class Server:
    """What is told, and whether anybody is there to hear it; after `looks` steps the watcher is stopped."""

    def __init__(self, *steps: Callable[["Server"], None]) -> None:
        self.told: list[Change] = []
        self.is_there = True
        self._steps, self._until = list(steps), time.monotonic() + PATIENCE_SECONDS

    def announce(self, change: Change) -> bool:
        if self.is_there:
            self.told.append(change)
        return self.is_there

    def stop(self) -> bool:
        """Take the next step once the one before was told of."""
        if time.monotonic() > self._until:
            pytest.fail(f"only this was told: {self.told}")
        if not self._steps:
            return True
        self._steps.pop(0)(self)
        return False


def add(*names: str) -> Callable[[Server], None]:
    """A step: photos are added."""

    def step(_: Server) -> None:
        for name in names:
            path = Path("data", "raw", name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"photo")

    return step


def until(condition: Callable[[Server], bool]) -> Callable[[Server], None]:
    """A step: go on watching until something is so."""

    def step(server: Server) -> None:
        if not condition(server):
            server._steps.insert(0, step)

    return step


def wait(seconds: float) -> Callable[[Server], None]:
    """A step: watch for so long."""
    end: list[float] = []

    def is_over(_: Server) -> bool:
        end[:] = end or [time.monotonic() + seconds]
        return time.monotonic() > end[0]

    return until(is_over)


def count(number: int) -> Callable[[Server], None]:
    """A step: go on watching until so many changes were told."""
    return until(lambda server: len(server.told) == number)


def watched(params: Params, *steps: Callable[[Server], None]) -> Server:
    server = Server(*steps)
    watch(params, server.stop, server.announce)
    return server


def test_new_photos_are_told_once(params: Params):
    server = watched(params, add("cat/1.jpg", "dog/2.jpg"), count(1), wait(0.3), add("cat/3.jpg"), count(2))
    assert [change.words() for change in server.told] == ["2 files: 2 new (cat 1, dog 1)", "3 files: 1 new (cat 1)"]


def test_after_a_restart_only_what_came_meanwhile_is_told(params: Params):
    watched(params, add("cat/1.jpg"), count(1))
    add("dog/2.jpg")(Server())
    assert [change.words() for change in watched(params, count(1), wait(0.3)).told] == ["2 files: 1 new (dog 1)"]


def test_what_no_server_was_there_to_hear_is_told_later(params: Params, capsys: pytest.CaptureFixture):
    def go(server: Server) -> None:
        server.is_there = False

    def come(server: Server) -> None:
        server.is_there = True

    server = watched(params, go, add("cat/1.jpg"), wait(0.3), come, count(1))
    assert [change.added for change in server.told] == [1]
    assert capsys.readouterr().err.count("no Prefect server can be told") == 1


@pytest.mark.parametrize("fault", ["empty", "gone"])
def test_a_folder_that_vanished_is_said_once_and_announces_nothing(
    params: Params, capsys: pytest.CaptureFixture, fault: str
):
    raw = Path("data", "raw")

    def unmount(_: Server) -> None:
        raw.rename("elsewhere")
        if fault == "empty":
            raw.mkdir()

    def mount(_: Server) -> None:
        if fault == "empty":
            raw.rmdir()
        Path("elsewhere").rename(raw)

    server = watched(params, add("cat/1.jpg"), count(1), unmount, wait(0.3), mount, wait(0.3))
    said = capsys.readouterr().err
    assert len(server.told) == 1
    assert said.count("is empty, and had 1 files" if fault == "empty" else "cannot be listed") == 1


def test_a_second_watcher_of_the_same_folder_says_so(params: Params):
    Path(".dvc", "tmp", "regraft").mkdir(parents=True)
    with (
        FileLock(Path(".dvc", "tmp", "regraft", "watched.lock")),
        pytest.raises(Busy, match="another process watches this folder"),
    ):
        watched(params)
