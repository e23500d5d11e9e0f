"""What a Prefect server is told while a run goes on, and what becomes of it where the server is away."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.runs import current_run
from tasks.runs.current_run import CurrentRun
from tasks.runs.live_runs import known_runs, new_live_run
from tasks.runs.prefect_api import Api, ServerAway


class Server(Api):
    """A server that may go away; it remembers what it was told."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9/api")
        object.__setattr__(self, "told", [])
        object.__setattr__(self, "is_away", False)

    told: list[tuple[str, Any]]
    is_away: bool

    def post(self, path: str, body: Any) -> Any:
        self.told.append((path, body))
        if self.is_away:
            raise ServerAway("away")
        return {"id": "a"}

    patch = post

    def go(self, *, away: bool) -> None:
        object.__setattr__(self, "is_away", away)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.chdir(tmp_path)
    Path(".dvc/tmp/regraft/runs").mkdir(parents=True)
    return Server()


def run(server: Server | None, flow_run: str | None = "f") -> CurrentRun:
    return CurrentRun(new_live_run("20261126T030000-000001", datetime.now(UTC), "hand", flow_run), server)


def test_a_run_has_one_bar_that_moves(server: Server) -> None:
    followed = run(server)
    for percent in (10.0, 50.0, 100.0):
        followed.tell_progress(percent, "train_head: so far")
    assert [path for path, _ in server.told] == ["artifacts/", "artifacts/a", "artifacts/a"]
    assert server.told[-1][1] == {"data": 100.0, "description": "train_head: so far"}


def test_a_server_that_is_away_is_left_alone_for_a_while(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = run(server)
    server.go(away=True)
    for percent in range(100):
        followed.tell_progress(float(percent), "")
    assert len(server.told) == 1
    server.go(away=False)
    monkeypatch.setattr(current_run, "_PAUSE_SECONDS", 0.0)
    followed._quiet_until = 0.0
    followed.tell_progress(100.0, "")
    assert len(server.told) == 2


def test_a_page_that_could_not_be_sent_is_kept_with_the_run(server: Server) -> None:
    followed = run(server)
    followed.publish("metrics", "# 0.93", "how good")
    server.go(away=True)
    followed.publish("gate", "# Promoted", "the verdict")
    (kept,) = known_runs()
    assert [artifact["key"] for artifact in kept.artifacts] == ["gate"]
    assert kept.artifacts[0]["data"] == "# Promoted"


@pytest.mark.parametrize("flow_run", [None, "f"])
def test_a_run_that_nobody_follows_tells_nobody(server: Server, flow_run: str | None) -> None:
    alone = run(None if flow_run else server, flow_run)
    alone.tell_progress(10.0, "")
    alone.publish("metrics", "# 0.93", "how good")
    assert (alone.reports, server.told) == (False, [])
