"""Runs whose process is gone: history and server are told how they ended, once, and whatever the server does."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.prefect_server.dead_runs import CRASHED, ending_of, tell_of_dead_runs, tell_of_vanished_runs
from regraft.core.config import Params
from regraft.core.params_file import load_params
from regraft.production.run_history import Row, add_rows, read_rows
from tasks.runs.live_runs import LiveRun, alive, known_runs, new_live_run, save
from tasks.runs.prefect_api import Api, ServerAway

STARTED = datetime(2026, 11, 26, 3, tzinfo=UTC)
RUN = "20261126T030000-000001"
SET = "flow_runs/f/set_state"


class Server(Api):
    """A server that knows flow runs by their ids, and remembers what it is told."""

    def __init__(self, **flow_runs: dict[str, Any]) -> None:
        super().__init__("http://127.0.0.1:9/api")
        object.__setattr__(self, "known", {f"flow_runs/{name}": found for name, found in flow_runs.items()})
        object.__setattr__(self, "told", [])

    known: dict[str, Any]
    told: list[tuple[str, Any]]

    def get(self, path: str) -> Any:
        return self.known.get(path)

    def post(self, path: str, body: Any) -> Any:
        if path == "flow_runs/filter":
            return list(self.known.values())
        self.told.append((path, body))
        return {}

    patch = post

    @property
    def states(self) -> list[str]:
        """The names of the states that it was told."""
        return [body["state"]["name"] for path, body in self.told if path.endswith("set_state")]


class Away(Server):
    """A server that does not answer."""

    def get(self, path: str) -> Any:
        raise ServerAway("away")

    post = patch = lambda self, path, body: self.get(path)


@pytest.fixture
def params(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    return load_params(root / "params.yaml")


def dead(ending: dict[str, Any] | None = None, flow_run: str | None = "f", **others: Any) -> LiveRun:
    """A run whose process is gone."""
    run = replace(new_live_run(RUN, STARTED, "retrain-nightly", flow_run), ending=ending, **others)
    with alive(run):
        pass
    return run


def promoted() -> dict[str, Any]:
    return ending_of("COMPLETED", "Promoted", "better", "2026-11-26 promoted 0.934", ["data:abcd"])


def rows(params: Params) -> list[tuple[str, str]]:
    return [(row.run, row.name) for row in read_rows(params.paths.production)]


def test_a_run_that_was_killed_is_told_of_once(params: Params) -> None:
    dead()
    server = Server(f={"state_type": "RUNNING", "tags": ["project:x"]})
    (line,) = tell_of_dead_runs(params, server)
    assert line.startswith("the run started by retrain-nightly at 2026-11-26 03:00 UTC")
    assert (server.states, server.told[-1][1]["state"]["message"]) == (["Crashed"], CRASHED)
    assert server.told[0] == ("flow_runs/f", {"name": "2026-11-26 crashed", "tags": ["project:x"]})
    assert (tell_of_dead_runs(params, server), len(server.states)) == ([], 1)
    assert (rows(params), known_runs()) == ([(RUN, "Crashed")], [])


def test_a_run_that_lives_is_none(params: Params) -> None:
    with ExitStack() as lives:
        lives.enter_context(alive(new_live_run(RUN, STARTED, "hand", "f")))
        assert tell_of_dead_runs(params, Server(f={"state_type": "RUNNING"})) == []


def test_while_the_server_is_away_the_history_knows_and_the_server_is_told_later(params: Params) -> None:
    dead()
    assert len(tell_of_dead_runs(params, Away())) == 1
    assert tell_of_dead_runs(params, None) == []
    server = Server(f={"state_type": "RUNNING"})
    tell_of_dead_runs(params, server)
    assert (server.states, rows(params), known_runs()) == (["Crashed"], [(RUN, "Crashed")], [])


def test_what_a_run_ended_in_while_the_server_was_away_is_sent_later_with_its_pages(params: Params) -> None:
    dead(promoted(), artifacts=[{"key": "trend", "data": "# up"}])
    server = Server(f={"state_type": "RUNNING", "tags": ["project:x"]})
    tell_of_dead_runs(params, server)
    assert [path for path, _ in server.told] == ["flow_runs/f", "artifacts/", SET]
    assert server.told[0][1] == {"name": "2026-11-26 promoted 0.934", "tags": ["data:abcd", "project:x"]}
    assert server.told[1][1] == {"key": "trend", "data": "# up", "flow_run_id": "f"}
    assert (server.states, known_runs()) == (["Promoted"], [])


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ("CRASHED", ["Promoted"]),  # an alarm, or the worker, took it for dead
        ("RUNNING", ["Promoted"]),
        ("PAUSED", ["Promoted"]),
        ("COMPLETED", []),
        ("CANCELLED", []),
        ("FAILED", []),
    ],
)
def test_an_end_that_the_server_knows_stays_unless_it_says_crashed(params: Params, known: str, told: list[str]) -> None:
    dead(promoted())
    server = Server(f={"state_type": known})
    tell_of_dead_runs(params, server)
    assert (server.states, known_runs()) == (told, [])


@pytest.mark.parametrize("flow_run", ["unknown", None])
def test_a_run_that_the_server_does_not_know_is_forgotten(params: Params, flow_run: str | None) -> None:
    dead(flow_run=flow_run)
    server = Server()
    tell_of_dead_runs(params, server)
    assert (server.told, rows(params), known_runs()) == ([], [(RUN, "Crashed")], [])


def _begun(ago: float, deployment: str | None = "d") -> dict[str, Any]:
    begun = (datetime.now(UTC) - timedelta(seconds=ago)).isoformat()
    return {"id": "f", "name": "x", "deployment_id": deployment, "state": {"timestamp": begun}}


OURS: dict[str, tuple[Callable[[], dict[str, Any]], str | None, list[str]]] = {
    "begun long ago here": (lambda: _begun(180), ".", ["Crashed"]),
    "begun just now": (lambda: _begun(20), ".", []),
    "of another folder": (lambda: _begun(180), "/elsewhere", []),
    "of no deployment": (lambda: _begun(180, None), ".", []),
}


@pytest.mark.parametrize("what", OURS)
def test_a_planned_run_that_was_killed_before_it_could_say_so_is_crashed(params: Params, what: str) -> None:
    begun, folder, told = OURS[what]
    server = Server(f=begun())
    server.known["deployments/d"] = {"job_variables": {"working_dir": str(Path(folder or ".").resolve())}}
    lines = tell_of_vanished_runs(server)
    assert (server.states, len(lines)) == (told, len(told))


def test_a_planned_run_that_lives_is_not_taken_for_one_that_vanished(params: Params) -> None:
    server = Server(f=_begun(9999))
    server.known["deployments/d"] = {"job_variables": {"working_dir": str(Path.cwd())}}
    with alive(new_live_run(RUN, STARTED, "retrain-nightly", "f")):
        assert tell_of_vanished_runs(server) == []
    assert server.states == []


def test_a_server_that_goes_away_meanwhile_ends_nothing(params: Params) -> None:
    save_before = dead(promoted())
    save(save_before)
    assert (tell_of_dead_runs(params, Away()), tell_of_vanished_runs(Away())) == ([], [])
    assert known_runs() == [save_before]


def test_a_run_that_retry_began_again_keeps_its_state_and_its_name(params: Params) -> None:
    dead(promoted(), artifacts=[{"key": "trend", "data": "# up"}])
    waiting = Server(f={"state_type": "SCHEDULED"})
    tell_of_dead_runs(params, waiting)
    assert [path for path, _ in waiting.told] == ["artifacts/"]
    dead(promoted())
    working = Server(f={"state_type": "RUNNING"})
    with alive(new_live_run("20261126T050000-000002", STARTED, "retrain-nightly", "f")):
        tell_of_dead_runs(params, working)
        assert (working.told, [run.run for run in known_runs()]) == ([], ["20261126T050000-000002"])


def test_another_try_replaces_the_tags_of_the_one_before(params: Params) -> None:
    dead(promoted())
    server = Server(f={"state_type": "RUNNING", "tags": ["data:old", "git:old", "project:x"]})
    tell_of_dead_runs(params, server)
    assert server.told[0][1]["tags"] == ["data:abcd", "project:x"]


def test_a_run_killed_after_its_row_was_written_ends_in_what_the_row_says(params: Params) -> None:
    add_rows(params.paths.production, [Row(run=RUN, started=STARTED, name="Refused", reason="worse")])
    dead()
    server = Server(f={"state_type": "RUNNING"})
    (line,) = tell_of_dead_runs(params, server)
    assert (server.states, rows(params), "had ended as Refused" in line) == (["Refused"], [(RUN, "Refused")], True)
    assert server.told[-1][1]["state"]["type"] == "CANCELLED"


def test_a_server_that_is_silent_is_asked_once(params: Params) -> None:
    asked: list[str] = []

    class Silent(Away):
        def get(self, path: str) -> Any:
            asked.append(path)
            return super().get(path)

    for number in range(3):
        with alive(replace(new_live_run(f"{RUN[:-1]}{number}", STARTED, "hand", "f"), ending=promoted())):
            pass
    tell_of_dead_runs(params, Silent())
    assert (len(asked), len(known_runs())) == (1, 3)
