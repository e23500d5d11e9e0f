"""`regraft serve` retrains every night and when photos arrive, one run at a time, and tells a person what matters."""

import json
import re
import socket
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.promises.conftest import Ran
from tests.promises.user import REGRAFT, Project

pytestmark = pytest.mark.flow
BROKEN = 12  # photos that arrive; so many in 120 end a run


class Alarms(list[str]):
    """What a person was told, in order."""

    address: str

    def about(self, words: str) -> list[str]:
        """Return the alarms that have these words."""
        return [alarm for alarm in self if words in alarm]


@pytest.fixture(scope="module")
def alarms() -> Iterator[Alarms]:
    """A web address of this machine that alarms are sent to."""
    received = Alarms()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    received.address = f"http://127.0.0.1:{server.server_port}/hook?token=a-secret-of-the-alarm"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield received
    server.shutdown()
    server.server_close()


class Nights:
    """What happens in a project that `regraft serve` looks after, one thing after the other."""

    def __init__(self, project: Project, alarms: Alarms) -> None:
        self.runs: list[dict[str, Any]] = []
        self.project, self.alarms, self.port = project, alarms, _free_port()
        project.listen_on(self.port)
        project.set_params({"nights.watch_seconds": 0.5, "nights.settle_seconds": 2.0})
        self.served = project.start(*REGRAFT, "serve", REGRAFT_ALARM_URL=alarms.address)
        self.served.wait_until(lambda: "Ctrl-C ends all of it" in self.served.output, "all is started")
        self.login = (Path(project.environment["PREFECT_HOME"]) / "regraft-login").read_text().strip()
        other_page = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
        self.refused = [self.ask(), self.ask(self.login, **other_page)]
        self.answered = self.ask(self.login)
        self.second = project.regraft("serve")
        self.schedules = project.regraft("prefect", "deployment", "inspect", "retrain/retrain-nightly")
        self.served.wait_until(self.has_ended_a_run, "the photos that were there are known", pause=1)
        self._kill_the_parts()
        self._kill_a_run_that_another_one_waits_for()
        self._let_photos_arrive()
        self.served.interrupt()
        self.end = self.served.status
        self.left = processes_in(project.root)

    def ask(self, login: str = "", **headers: str) -> int:
        """Ask the server for a token, and with it for its runs; return the status of its answer, 0 if there is none."""
        if login:
            headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
        body = json.dumps({"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "COMPLETED"]}}}}).encode()
        try:
            token = self._answer("csrf-token?client=test", None, headers)["token"]
            headers |= {"Prefect-Csrf-Client": "test", "Prefect-Csrf-Token": token, "Content-Type": "application/json"}
            self.runs = self._answer("flow_runs/filter", body, headers)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0
        return 200

    def _answer(self, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/{path}", body, headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def has_ended_a_run(self) -> bool:
        """Whether a run came to an end, and none is at work."""
        self.ask(self.login)
        kinds = [run["state"]["type"] for run in self.runs]
        return set(kinds) == {"COMPLETED"}

    def _kill_the_parts(self) -> None:
        parts = psutil.Process(self.served.process.pid).children()
        for part in parts:
            part.kill()
        self.killed = len(parts)
        self.served.wait_until(lambda: self.served.output.count("is started again") >= len(parts), "all came back")
        self.served.wait_until(lambda: self.ask(self.login) == 200, "the server answers again", pause=1)

    def _let_photos_arrive(self) -> None:
        for number in range(BROKEN):
            self.project.write(f"data/raw/0/broken {number}.png", f"no photo {number}")
        self.served.wait_until(lambda: self.alarms.about("failed"), "the failure is told of")

    def _kill_a_run_that_another_one_waits_for(self) -> None:
        recorded = self.project.read("dvc.lock")
        self.project.set_params({"seed": 1})
        self.one = self.project.start(*REGRAFT, "retrain")
        self.one.wait_until(lambda: self.project.read("dvc.lock") != recorded, "the first run has trained a head")
        self.other = self.project.start(*REGRAFT, "retrain")
        self.other.wait_until(lambda: "Waiting for" in self.other.output, "the second run waits")
        self.one.kill()
        killed = self.project.read("dvc.lock")
        self.other.wait_until(lambda: self.project.read("dvc.lock") != killed, "the second run goes on")
        self.other.interrupt()
        assert self.other.status is not None
        self.served.wait_until(lambda: self.alarms.about("crashed"), "the crash is told of")


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def nights(first_run: Ran, projects: Callable[..., Project], alarms: Alarms) -> Iterator[Nights]:
    """The story of some nights."""
    project = projects(first_run)
    try:
        yield Nights(project, alarms)
    finally:
        project.end()
        while left := processes_in(project.root):  # a worker starts runs in sessions of their own
            for process in left:
                with suppress(psutil.Error):
                    process.kill()


def test_the_server_has_a_password_and_refuses_other_web_pages_also_with_it(nights: Nights) -> None:
    assert (nights.refused[0], nights.answered) == (401, 200)
    assert nights.refused[1] in (400, 401, 403)


def test_the_password_is_for_its_owner_alone_and_stands_nowhere_else(nights: Nights) -> None:
    path = Path(nights.project.environment["PREFECT_HOME"]) / "regraft-login"
    assert path.stat().st_mode & 0o077 == 0
    secrets = [nights.login.rpartition(":")[2].encode(), b"a-secret-of-the-alarm"]
    root = nights.project.root
    left = [path for path in root.rglob("*") if path.is_file() and "cache" not in path.relative_to(root).parts]
    assert [path for path in left for secret in secrets if secret in path.read_bytes()] == []
    assert [secret for secret in secrets if secret.decode() in nights.served.output] == []


def test_one_serve_is_enough_for_a_folder(nights: Nights) -> None:
    assert (nights.second.status, "already" in nights.second.output) == (1, True)


def test_a_run_is_planned_for_every_night(nights: Nights) -> None:
    assert "0 3 * * *" in nights.schedules.output


def test_parts_that_are_killed_are_started_again(nights: Nights) -> None:
    assert nights.killed >= 2


def test_a_run_starts_when_photos_have_arrived_and_its_failure_is_told_with_the_reason(nights: Nights) -> None:
    (alarm,) = nights.alarms.about("failed")
    assert re.search(f"{BROKEN} of {120 + BROKEN}", alarm), alarm


def test_a_run_waits_for_the_one_before_and_goes_on_where_a_kill_ended_it(nights: Nights) -> None:
    assert str(nights.one.process.pid) in nights.other.output
    assert "train_head: Ran" not in nights.other.output


def test_ctrl_c_ends_a_run_with_130_and_it_says_where_it_stopped(nights: Nights) -> None:
    assert (nights.other.status, "Stopped in" in nights.other.output) == (130, True), nights.other.output


def test_a_crashed_run_is_told_of(nights: Nights) -> None:
    assert len(nights.alarms.about("crashed")) == 1


def test_ctrl_c_ends_all_that_serve_has_started(nights: Nights) -> None:
    assert (nights.end, nights.left) == (0, []), nights.served.output


def test_the_morning_page_says_how_each_run_ended(nights: Nights) -> None:
    page = nights.project.read("reports/history.html")
    for word in ("Failed", "Crashed"):
        assert word in page
