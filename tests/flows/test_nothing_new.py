"""A planned run with nothing to do ends before Prefect is imported; all others are left to the engine."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows import nothing_new, planned_run
from flows.nothing_new import Plan, end_early
from regraft.core.errors import InvalidData
from regraft.core.params_file import load_params
from regraft.production.run_history import read_rows
from tasks.runs.live_runs import known_runs, new_live_run, only_run
from tasks.runs.prefect_api import Api
from tasks.step import Outcome
from tests.support.answering import Answer, Answering, answering

FOUND = ("Nothing new", "nothing has changed since the gate said Undecided: so.")
SET = "POST flow_runs/f/set_state"
FLOW_RUN = {"parameters": {"promote": True, "commit": False}, "deployment_id": "d", "state_type": "PENDING", "tags": []}
ANSWERS: dict[str, Any] = {
    "GET csrf-token": (200, {"token": "t"}),
    "GET flow_runs/f": (200, FLOW_RUN),
    "GET deployments/d": (200, {"name": "retrain-nightly", "entrypoint": "flows/retrain.py:retrain"}),
    "PATCH flow_runs/f": (204, None),
    "POST artifacts/": (201, {"id": "a"}),
    SET: (201, {"status": "ACCEPT"}),
}


@pytest.fixture(autouse=True)
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which nothing is to be done."""
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((root / name).read_text())
    monkeypatch.setattr(nothing_new, "nothing_to_do", lambda root, promote: FOUND)
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """A Prefect server that planned the run `f`, and that this process reports to."""
    with answering(dict(ANSWERS)) as program:
        monkeypatch.setattr(planned_run, "named_api", lambda: Api(program.url))
        yield program


def planned() -> Outcome | None:
    return planned_run._end_early("f")


def test_it_is_running_and_then_what_was_found(server: Answering) -> None:
    assert planned() == Outcome(*FOUND)
    states = [body["state"] for body in server.told(SET)]
    assert [f"{state['name']} ({state['type']})" for state in states] == [
        "Running (RUNNING)",
        "Nothing new (COMPLETED)",
    ]
    assert states[1]["message"] == FOUND[1]
    (label,) = server.told("PATCH flow_runs/f")
    assert label["name"].endswith(" nothing new")


def test_it_has_its_line_in_the_history_and_nobody_takes_it_for_dead(server: Answering) -> None:
    planned()
    (row,) = read_rows(load_params(Path("params.yaml")).paths.production)
    assert (row.name, row.started_by, row.reason, known_runs()) == ("Nothing new", "retrain-nightly", FOUND[1], [])
    assert str(row.url).endswith("/runs/flow-run/f")


def test_where_something_is_to_be_done_the_server_is_told_nothing(server: Answering, monkeypatch) -> None:
    monkeypatch.setattr(nothing_new, "nothing_to_do", lambda root, promote: None)
    assert (planned(), server.told(SET)) == (None, [])


def test_while_another_run_works_nothing_is_looked_at(server: Answering, monkeypatch) -> None:
    monkeypatch.setattr(nothing_new, "nothing_to_do", lambda root, promote: pytest.fail("that one changes it"))
    with only_run(new_live_run("x", datetime.now(UTC), "hand", None), 0, pytest.fail):
        assert (planned(), server.told(SET)) == (None, [])


OTHERS: dict[str, dict[str, Answer]] = {
    "another flow": {"GET deployments/d": (200, {"name": "verify-weekly", "entrypoint": "flows/verify.py:verify"})},
    "a run that the server does not know": {"GET flow_runs/f": (404, None)},
    "a deployment that is gone": {"GET deployments/d": (404, None)},
    "a server that fails": {"GET flow_runs/f": (500, None)},
    "a server that may not be changed": {SET: (401, None)},
}


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_else_is_left_to_the_engine(server: Answering, what: str) -> None:
    server.answers.update(OTHERS[what])
    assert planned() is None
    assert [body for body in server.told(SET) if body["state"]["name"] != "Running"] == []


def test_without_a_server_it_is_left_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned_run, "named_api", lambda: None)
    assert planned() is None
    monkeypatch.setattr(planned_run, "named_api", lambda: Api("http://127.0.0.1:9/api"))
    assert planned() is None


def test_an_end_that_the_server_did_not_hear_is_told_by_the_next_run(server: Answering) -> None:
    server.answers[SET] = [(201, {"status": "ACCEPT"}), (500, None), (201, {"status": "ACCEPT"})]
    planned()
    (run,) = known_runs()
    assert run.ending
    assert run.ending["state"] == {"type": "COMPLETED", "name": "Nothing new", "message": FOUND[1]}
    assert planned() == Outcome(*FOUND)
    assert known_runs() == []


def test_by_hand_it_needs_no_server(project: Path) -> None:
    assert end_early(project, promote=True, commit=False) == Outcome(*FOUND)
    (row,) = read_rows(load_params(Path("params.yaml")).paths.production)
    assert (row.started_by, row.url) == ("hand", None)


def test_a_plan_is_what_the_server_knows_of_the_run(server: Answering) -> None:
    plan = Plan(Api(server.url), "f")
    assert (plan.deployment, plan.entrypoint) == ("retrain-nightly", "flows/retrain.py:retrain")


def test_nothing_of_it_imports_what_takes_long(root: Path) -> None:
    heavy = {"prefect", "tensorflow", "keras", "pandas", "matplotlib"}
    script = f"import json, sys, flows.planned_run; print(json.dumps(sorted({heavy} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_data_folder_that_is_away_is_a_run_that_fails_and_not_one_that_leaves_no_trace(project, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise InvalidData("there is no data folder")

    monkeypatch.setattr(nothing_new, "nothing_to_do", refuse)
    assert end_early(project, promote=True, commit=False) is None
