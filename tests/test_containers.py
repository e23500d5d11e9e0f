"""Dockerfile, compose.yaml and deploy/prefect.yaml, as far as they can be checked without a container engine."""

import inspect
import os
import re
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

SECRET = re.compile("PASSWORD|SECRET|TOKEN|ACCESS_KEY|AUTH_STRING")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """compose.yaml with what it merges."""
    return YAML(typ="safe").load(Path("compose.yaml"))


@pytest.fixture(scope="module")
def deployments() -> dict[str, dict[str, Any]]:
    """The deployments of deploy/prefect.yaml by name, as Prefect's own command line reads them."""
    from prefect.cli.deploy._config import _load_deploy_configs_and_actions
    from rich.console import Console

    said = Console(record=True)
    found, _ = _load_deploy_configs_and_actions(Path("deploy/prefect.yaml"), console=said)
    assert not said.export_text()
    return {deployment["name"]: deployment for deployment in found}


def test_a_night_of_a_worker_that_keeps_nothing_is_committed(deployments):
    from flows.retrain import retrain

    for deployment in deployments.values():
        assert deployment["parameters"]["commit"] is True
        assert not SECRET.search(str(deployment["work_pool"]))  # Prefect would store it in plain text
        assert set(deployment["parameters"]) <= set(inspect.signature(retrain.fn).parameters)


def test_every_step_of_a_pull_is_one_of_prefects_with_its_own_arguments(deployments):
    for deployment in deployments.values():
        for step in deployment["pull"]:
            ((name, given),) = step.items()
            module, function = name.rsplit(".", 1)
            inspect.signature(getattr(import_module(module), function)).bind(
                **{k: v for k, v in given.items() if k != "id"}
            )
        assert [next(iter(step)).rsplit(".", 1)[1] for step in deployment["pull"]][-2:] == [
            "git_clone",
            "run_shell_script",
        ]


def test_ports_of_the_compose_file_are_open_to_this_machine_only(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_has_a_version_and_ours_has_no_rights(compose):
    for service in compose["services"].values():
        if "build" in service:
            assert service["cap_drop"] == ["ALL"]
            assert service["read_only"]
            assert service["security_opt"] == ["no-new-privileges:true"]
        else:
            assert re.search(r":\d[\w.-]*$", service["image"])


def test_secrets_come_from_a_file_that_neither_git_nor_the_image_has(compose):
    for service in compose["services"].values():
        for name, value in (service.get("environment") or {}).items():
            if SECRET.search(name):
                assert re.fullmatch(r"(regraft:)?\$\{\w+(:\?fill in \.env|:-)\}", value), name
    text = Path("compose.yaml").read_text()
    example = dict(
        line.split("=", 1) for line in Path(".env.example").read_text().splitlines() if re.match(r"\w+=", line)
    )
    assert set(re.findall(r"\$\{(\w+)", text)) == set(example)
    assert not any(value for name, value in example.items() if re.search("PASSWORD|SECRET|TOKEN", name))
    assert "/.env" in Path(".gitignore").read_text().splitlines()


def test_nothing_gets_into_the_image_but_what_is_named():
    lines = [line for line in Path(".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    named = {line[1:] for line in lines if line.startswith("!")}
    assert all(Path(name).exists() for name in named)
    assert not named & {"data", "build", "models", ".env", ".git", ".dvc", ".dvc/config.local"}


@pytest.mark.parametrize(
    ("asks", "told"),
    [
        ("protocol=https\nhost=git.example.org\n", "username=x-token-auth password=SECRET"),
        ("protocol=https\nhost=git.example.org\nusername=me\n", "username=me password=SECRET"),
        ("protocol=http\nhost=git.example.org\n", ""),
        ("protocol=https\nhost=git.example.org.elsewhere.org\n", ""),
    ],
)
@pytest.mark.parametrize("user", ["", "me@"])
def test_git_in_the_image_gets_the_token_for_the_projects_own_host_and_over_https_only(asks, told, user):
    given = {"REGRAFT_GIT": f"https://{user}git.example.org/owner/name.git", "REGRAFT_GIT_TOKEN": "SECRET"}

    def answer(helper_asks: str, **variables: str) -> str:
        command = [Path("packaging/git-credential-regraft").resolve(), "get"]
        ended = subprocess.run(
            command, input=helper_asks, env=os.environ | variables, capture_output=True, text=True, check=True
        )
        return " ".join(ended.stdout.split())

    assert answer(asks, **given) == told
    assert not answer(asks, **given | {"REGRAFT_GIT_TOKEN": ""})
    assert not answer(asks, **given | {"REGRAFT_GIT": "git@git.example.org:owner/name.git"})


def test_the_image_runs_as_nobody_and_installs_only_what_a_lock_file_names():
    text = Path("Dockerfile").read_text()
    user = re.findall(r"^USER (\d+):\d+$", text, re.M)
    assert user
    assert int(user[-1]) > 0
    installs = re.findall(r"pip install .*", text)
    assert len(installs) == 3
    assert all("--require-hashes" in each or "--no-deps -e ." in each for each in installs)
    assert text.index("COPY . ./") > text.rindex("pip install")  # else every revision has two gigabytes of its own
    assert "# syntax" not in text  # it would be fetched, and run, at every build
