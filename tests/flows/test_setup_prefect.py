"""`regraft serve` at a real server: what it makes, what it leaves alone, and what it says of a wrong file."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema_from_entrypoint

from flows.prefect_server.events import announce
from flows.prefect_server.setup_prefect import set_up
from regraft.core.errors import RegraftError
from tests.support.prefect_server import SOURCE, Server
from tests.support.set_up import Deployed, clear, make_deployable

pytestmark = pytest.mark.flow


@pytest.fixture
def deployed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    """A project that was set up once, in the folder that this process is in."""
    monkeypatch.chdir(make_deployable(tmp_path / "project"))
    with temporary_settings({PREFECT_API_URL: server.api}):
        clear()
        yield Deployed(server, set_up())


def test_a_second_set_up_changes_nothing(deployed: Deployed):
    assert any("created" in line for line in deployed.lines)
    before = deployed.automations()
    assert {line.rpartition(": ")[2] for line in set_up() if line.startswith(("deployment", "auto"))} == {"unchanged"}
    assert deployed.automations() == before


def test_photos_are_scored_every_morning_after_the_training_of_the_night(deployed: Deployed):
    crons = {name: deployed.deployment(name)["schedules"] for name in ("retrain-nightly", "score-daily")}
    hours = {name: int(schedule[0]["schedule"]["cron"].split()[1]) for name, schedule in crons.items()}
    assert hours["score-daily"] > hours["retrain-nightly"]


def test_what_a_person_paused_stays_paused_and_what_a_person_made_stays(deployed: Deployed):
    nightly = deployed.deployment("retrain-nightly")
    deployed.patch(f"deployments/{nightly['id']}/schedules/{nightly['schedules'][0]['id']}", {"active": False})
    mine = {"schedule": {"cron": "0 6 * * 1", "timezone": "UTC"}, "active": True}
    deployed.post(f"deployments/{nightly['id']}/schedules", [mine])
    automation = deployed.automation("regraft: No sign of life")
    deployed.patch(f"automations/{automation['id']}", {"enabled": False})
    deployed.post("automations/", {key: automation[key] for key in ("trigger", "actions")} | {"name": "mine"})
    deployed.edit("prefect.yaml", '"0 3 * * *"', '"30 2 * * *"')
    deployed.edit("automations.yaml", "within: 90 ", "within: 120 ")

    lines = "\n".join(set_up())

    assert "retrain-nightly: updated (schedules)" in lines
    schedules = {
        each["schedule"]["cron"]: each["active"] for each in deployed.deployment("retrain-nightly")["schedules"]
    }
    assert schedules == {"30 2 * * *": False, "0 6 * * 1": True}
    changed = deployed.automation("regraft: No sign of life")
    assert (changed["enabled"], changed["trigger"]["within"]) == (False, 120)
    assert deployed.automation("mine")


def test_an_automation_that_waits_for_an_event_is_updated_too(deployed: Deployed):
    """Its trigger has no posture in the file, because it is Prefect's default."""
    deployed.edit("automations.yaml", "Then a run starts.", "A run starts then.")
    assert "automation regraft: New photos: updated" in set_up()
    assert deployed.automation("regraft: New photos")["description"].endswith("A run starts then.")
    assert not any("updated" in line for line in set_up())


def test_a_deployment_that_was_deleted_comes_back_and_its_automation_starts_it(deployed: Deployed):
    lost = deployed.deployment("retrain-on-new-data")["id"]
    deployed.server.ask("DELETE", f"deployments/{lost}")
    set_up()
    made = deployed.deployment("retrain-on-new-data")["id"]
    assert made != lost
    assert [each["deployment_id"] for each in deployed.automation("regraft: New photos")["actions"]] == [made]


def test_what_the_files_have_no_more_is_removed(deployed: Deployed):
    deployed.edit("automations.yaml", "name: Never began", "name: Never came to life")
    deployed.edit("prefect.yaml", "name: verify-weekly", "name: verify-monthly")
    lines = set_up()
    assert sum(line.endswith("Never began: removed") for line in lines) == 1
    assert any(line.startswith("deployment verify-weekly: removed") for line in lines)
    assert not deployed.automation("regraft: Never began")
    assert not deployed.deployment("verify-weekly")


def test_without_a_block_it_says_that_nobody_is_told_and_with_one_it_wires_it(deployed: Deployed, monkeypatch):
    assert any("NOBODY WILL BE TOLD" in line for line in deployed.lines)
    assert not deployed.automation("regraft: Refused")
    deployed.edit("automations.yaml", "notify: regraft-alarms ", "notify: other-alarms ")
    monkeypatch.setenv("REGRAFT_ALARM_URL", "http://127.0.0.1:9/secret-path")
    assert not any("NOBODY" in line for line in set_up())
    assert deployed.automation("regraft: Refused")["actions"][0]["type"] == "send-notification"
    blocks = deployed.post("block_documents/filter", {"block_documents": {"name": {"any_": ["other-alarms"]}}})
    assert "secret-path" not in str(blocks)


def test_a_wrong_file_changes_nothing(deployed: Deployed):
    before = deployed.automations()
    deployed.edit("automations.yaml", "        state: CRASHED", "        state: CRUSHED")
    with pytest.raises(RegraftError, match="automation 'No sign of life'"):
        set_up()
    assert deployed.automations() == before


def test_a_deployment_of_another_folder_is_not_taken_over(deployed: Deployed, tmp_path: Path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(Path.cwd(), other)
    monkeypatch.chdir(other)
    with pytest.raises(RegraftError, match=r"retrain-nightly at this server belongs to .*names of its own"):
        set_up()


def test_a_person_reads_in_the_ui_what_each_parameter_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(SOURCE)
    for entrypoint in ("flows/retrain.py:retrain", "flows/verify.py:verify"):
        described: dict[str, Any] = parameter_schema_from_entrypoint(entrypoint).model_dump()["properties"]
        assert described
        assert all(len(each["description"]) > 20 for each in described.values())


def test_an_event_reaches_the_server_and_one_that_cannot_is_no_error(deployed: Deployed, monkeypatch):
    assert announce("regraft.drift", "the light has changed", figure=1.5)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert not announce("regraft.drift", "the light has changed")
