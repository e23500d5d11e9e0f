"""The deployment of prefect.yaml against a real server: that it is there, and that the server plans its runs."""

import time
from pathlib import Path

import pytest

from tests.support.prefect_server import Server
from tests.support.project import Project

pytestmark = pytest.mark.flow
SOURCE = ["regraft", "tasks", "flows", "expectations", "params.yaml", "dvc.yaml", "prefect.yaml", "pyproject.toml"]


@pytest.fixture(scope="module")
def deployment(environment: dict[str, str], server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the server knows of the deployment after the commands of the guide."""
    folder = tmp_path_factory.mktemp("schedule") / "project"
    folder.mkdir()
    project = Project(folder, environment)
    project.copy_source(SOURCE)
    project.succeed("prefect", "work-pool", "create", "regraft", "--type", "process", PREFECT_API_URL=server.api)
    project.succeed("prefect", "--no-prompt", "deploy", "--all", PREFECT_API_URL=server.api)
    (found,) = server.post("deployments/filter", {})
    return found | {"folder": folder}


def test_the_deployment_has_the_name_that_the_guide_uses(deployment):
    assert deployment["name"] == "retrain-nightly"


def test_one_run_at_a_time_and_another_is_turned_away(deployment):
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"


def test_a_run_works_in_the_folder_that_was_deployed(deployment):
    (step,) = deployment["pull_steps"]
    assert [Path(arguments["directory"]) for arguments in step.values()] == [deployment["folder"]]


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
