"""`regraft serve`: what dies is started again, one is enough, and Ctrl-C leaves nothing behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from flows.prefect_server import serve
from flows.prefect_server.serve import Part
from flows.prefect_server.server_secret import get
from tasks.runs.live_runs import alive, new_live_run
from tests.support.prefect_server import free_port
from tests.support.project import REGRAFT, Command, Project, clean_environment

SOURCE = ["regraft", "tasks", "flows", "params.yaml", "dvc.yaml", "prefect.yaml", "automations.yaml", "pyproject.toml"]
SERVER, WORKER = "flows.prefect_server.guarded_server", "worker"  # words of their command lines


class Served(Project):
    """A project whose server listens on a port of its own."""

    def use_port(self) -> None:
        """Choose the port."""
        self.port = free_port()
        module = "flows/prefect_server/connection.py"
        self.write(module, self.read(module).replace("PORT = 4200", f"PORT = {self.port}"))

    def processes(self) -> dict[int, list[str]]:
        """The command lines of all processes that work in this folder, by their numbers."""
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.cwd() == str(self.root) and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = process.cmdline()
        return found

    def part(self, name: str) -> int:
        """The number of the process of a part; 0 if there is none."""
        return next((pid for pid, words in self.processes().items() if name in words), 0)

    @property
    def answers(self) -> bool:
        """Whether its server does."""
        return get("/api/health", self.port) == b"true"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "project").mkdir()
    project = Served(tmp_path / "project", clean_environment(tmp_path / "home"), patience=180)
    project.copy_source(SOURCE)
    project.use_port()
    project.succeed("dvc", "init", "--quiet", "--no-scm")
    yield project
    project.end()
    give_up = time.monotonic() + 30
    while project.processes() and time.monotonic() < give_up:  # each ends by itself when `regraft serve` is gone
        time.sleep(0.2)


def kill_and_wait(project: Served, command: Command, *parts: str) -> None:
    """Kill parts at once, and wait until each is another process."""
    before = {part: project.part(part) for part in parts}
    assert all(before.values()), project.processes()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    command.wait_until(lambda: all(project.part(part) not in (0, before[part]) for part in parts), f"{parts} are back")


@pytest.mark.flow
def test_what_dies_is_started_again_and_ctrl_c_ends_all_of_it(project: Served) -> None:
    served = project.start(*REGRAFT, "serve", http_proxy="http://127.0.0.1:9")  # nothing of ours may go through it
    served.wait_until(lambda: "Ctrl-C ends all of it" in served.output, "all is started")
    assert project.answers

    second = project.run(*REGRAFT, "serve")
    assert (second.status, "`regraft serve` works in this folder already" in second.output) == (1, True)

    kill_and_wait(project, served, SERVER, WORKER)
    served.wait_until(lambda: project.answers, "the server answers again")
    for part in ("server", "worker"):
        assert served.output.count(f"The {part} has ended (signal 9) and is started again. Log: .dvc/tmp/regraft/") == 1

    served.process.send_signal(signal.SIGINT)
    assert (served.status, served.output.splitlines()[-1]) == (0, "All has ended.")
    assert (project.processes(), project.answers) == ({}, False)
    assert "Traceback" not in served.output


def starting(monkeypatch: pytest.MonkeyPatch, clock: Callable[[], float]) -> tuple[Part, list[float]]:
    """A part that ends at once whenever it is started, and the times at which it was started."""
    starts: list[float] = []

    class Ended:
        pid, returncode = 0, 1

        def poll(self) -> int:
            return 1

    def start(_: object) -> Ended:
        starts.append(clock())
        return Ended()

    monkeypatch.setattr(serve.time, "monotonic", clock)
    return Part("worker", start), starts  # type: ignore[arg-type]


def test_a_part_that_always_ends_at_once_is_started_after_pauses_that_grow_to_a_minute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    now = 1000.0
    part, starts = starting(monkeypatch, lambda: now)
    part.start()
    for _ in range(1000):
        part.keep_running()
        now += 0.25
    pauses = [round(after - before) for before, after in pairwise(starts)]
    assert pauses[:7] == [2, 4, 8, 16, 32, 60, 60]


def test_a_run_whose_worker_was_killed_with_its_serve_is_stopped_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    started = datetime.now(UTC)
    script = "sleep 60 >/dev/null 2>&1 & echo $!"
    left = subprocess.run(["sh", "-c", script], start_new_session=True, capture_output=True, text=True, check=True)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as worker, ExitStack() as stack:
        for number, (pid, by) in enumerate([(int(left.stdout), "nightly"), (worker.pid, "nightly"), (1, "hand")]):
            stack.enter_context(alive(replace(new_live_run(str(number), started, by, None), pid=pid)))
        serve._end_orphans()
        give_up = time.monotonic() + 10
        while psutil.pid_exists(int(left.stdout)) and time.monotonic() < give_up:
            with suppress(psutil.Error):
                if psutil.Process(int(left.stdout)).status() == psutil.STATUS_ZOMBIE:
                    break
            time.sleep(0.05)
        assert time.monotonic() < give_up
        assert worker.poll() is None
        worker.kill()


def test_a_log_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serve, "_LOG_BYTES", 100)
    part, _ = starting(monkeypatch, time.monotonic)
    part.start()
    part.log.write_text("x" * 101)
    part.start()
    assert (part.log.read_text(), part.log.with_suffix(".old.log").stat().st_size) == ("", 101)
