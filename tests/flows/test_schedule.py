"""The deployments of prefect.yaml, made by `regraft serve` at the server of `regraft serve`; a worker runs one."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.prefect_server import Server, running_server
from tests.support.project import REGRAFT, Project

pytestmark = pytest.mark.flow
SOURCE = ["regraft", "tasks", "flows", "expectations", "params.yaml", "dvc.yaml", "prefect.yaml"]
SOURCE += ["automations.yaml", "pyproject.toml"]


_FLOW = """\
import os
import pathlib

from prefect import flow


@flow(log_prints=True)
def retrain(promote: bool = True):
    print("said by the flow")
    pathlib.Path("ran.new").write_text(os.environ["PREFECT_API_URL"])
    pathlib.Path("ran.new").rename("ran")
"""


@pytest.fixture(scope="module")
def server(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of `regraft serve`; its user is the one whose commands follow."""
    with running_server(tmp_path_factory.mktemp("server"), environment, guarded=True) as server:
        yield server


@pytest.fixture(scope="module")
def project(environment: dict[str, str], server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The source, in which the server is expected on the port where it is."""
    folder = tmp_path_factory.mktemp("schedule") / "project"
    folder.mkdir()
    project = Project(folder, environment, patience=120)
    project.copy_source(SOURCE)
    text = project.read("flows/prefect_server/connection.py")
    assert "PORT = 4200" in text
    project.write("flows/prefect_server/connection.py", text.replace("PORT = 4200", f"PORT = {server.port}"))
    yield project
    project.end()


@pytest.fixture(scope="module")
def deployment(project: Project, server: Server) -> dict:
    """What the server knows of the nightly deployment; other tests of this process have a server with its database."""
    for other in server.post("deployments/filter", {}):
        server.ask("DELETE", f"deployments/{other['id']}")
    project.succeed(*REGRAFT, "serve", "--only", "setup")
    (found,) = server.post("deployments/filter", {"deployments": {"name": {"any_": ["retrain-nightly"]}}})
    return found | {"folder": project.root}


def test_the_deployment_has_the_name_that_the_guide_uses(deployment):
    assert deployment["name"] == "retrain-nightly"


def test_a_run_works_in_the_folder_that_was_deployed(deployment):
    (step,) = deployment["pull_steps"]
    assert [Path(arguments["directory"]) for arguments in step.values()] == [deployment["folder"]]
    assert Path(deployment["job_variables"]["working_dir"]) == deployment["folder"]


def test_the_server_plans_runs_of_the_schedule(deployment, server):
    # With SQLAlchemy 2.1 everything else works and this does not: the server's log alone says why.
    give_up = time.monotonic() + 60
    planned = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"name": {"any_": ["Scheduled"]}}},
    }
    while not server.post("flow_runs/filter", planned):
        assert time.monotonic() < give_up, "no run was planned within a minute"
        time.sleep(0.5)


def test_a_worker_that_nobody_told_the_password_runs_what_is_asked_for_and_prints_none(project, server, deployment):
    project.write("flows/retrain.py", _FLOW)
    worker = project.start(*REGRAFT, "prefect", "worker", "start", "--pool", "regraft", "--limit", "1")
    project.succeed(*REGRAFT, "prefect", "deployment", "run", "retrain/retrain-nightly")
    worker.wait_until((project.root / "ran").exists, "the flow ran")
    worker.wait_until(lambda: "Completed" in worker.output, "it has said all")
    worker.kill()
    project.succeed(*REGRAFT, "prefect", "config", "view")
    assert project.read("ran") == server.api
    printed = "".join(path.read_text() for path in project.root.parent.glob("*.std*"))
    assert ("said by the flow" in printed, server.password[8:] in printed) == (True, False)
