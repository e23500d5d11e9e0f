"""automations.yaml: what a wrong key is told, and every automation fired at a real server; what arrives is read."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.prefect_server.automations import Server as Known
from flows.prefect_server.automations import build_automation, read_automations
from flows.prefect_server.events import Project, announce
from flows.prefect_server.setup_prefect import set_up
from regraft.core.errors import RegraftError
from regraft.production.gate import verdict
from tasks.score_photos import Said, outcome_of
from tests.support.prefect_server import SOURCE, Server
from tests.support.set_up import Deployed, clear, make_deployable
from tests.support.webhook import Received, webhook

KNOWN = Known("http://ui", {"retrain-on-new-data": uuid4()}, uuid4())
FILE = SOURCE / "automations.yaml"
_SECONDS = 90.0  # on a busy machine


def built(text: str, folder: Path, known: Known = KNOWN) -> list[Any]:
    """Return what a file's automations become."""
    path = folder / "automations.yaml"
    path.write_text(text)
    return [build_automation(each, Project("fruit", folder), known) for each in read_automations(path).automations]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    run: retrain", "    rum: retrain", "automation 'New photos' has an unknown key `rum`"),
        (
            "run: retrain-on-new-data",
            "run: retrain-nightlyy",
            "'New photos': `run` must be a deployment of prefect.yaml",
        ),
        ("      within: 90 ", "      witin: 90 ", "'No sign of life' has a wrong `trigger.event.witin`: Extra inputs"),
        ("        state: CRASHED", "        state: CRUSHED", "automation 'No sign of life' has a wrong `actions.0"),
        ("posture: Proactive", "posture: Pro", "automation 'Crashed' has a wrong `trigger.event.posture`"),
        ("within: 90 ", "within: soon ", "automation 'No sign of life' has a wrong `trigger.event.within`"),
        ("name: Never began", "name: Late", "automation 'Late' is there twice"),
        ("      subject: the week", "      sujet: the week", "'Weekly summary': `message` must have the keys"),
        ("notify: regraft-alarms", "notfy: regraft-alarms", "has an unknown key `notfy`"),
        ("automations:\n", "automations: [\n", "is not valid YAML"),
    ],
)
def test_a_wrong_key_is_named_with_its_automation(tmp_path: Path, old: str, new: str, said: str):
    text = FILE.read_text()
    assert old in text
    with pytest.raises(RegraftError, match=re.escape(said)):
        built(text.replace(old, new), tmp_path)


def test_nothing_of_another_project_sets_anything_off(tmp_path: Path):
    for automation in built(FILE.read_text(), tmp_path):
        assert automation.trigger.match_related[0].root == {"prefect.resource.id": "prefect.tag.project:fruit"}
        assert automation.name.startswith("fruit: ")


def test_every_name_that_a_run_may_end_in_ends_the_wait_for_its_heartbeat(tmp_path: Path):
    (zombie,) = [each for each in built(FILE.read_text(), tmp_path) if each.name == "fruit: No sign of life"]
    outcomes_of_scoring = {
        outcome_of(Said("", warnings, is_new=is_new)).name for warnings in ((), ("drift",)) for is_new in (True, False)
    }
    names = {
        *verdict.Name.__args__,
        "Not approved",
        "Nothing new",
        "Completed",
        "Verified",
        *outcomes_of_scoring,
        "Failed",
        "Crashed",
        "Cancelled",
    }
    assert zombie.trigger.expect == {f"prefect.flow-run.{name}" for name in {"heartbeat", *names}}


def test_without_a_block_only_what_does_more_than_tell_is_made(tmp_path: Path):
    made = [each.name for each in built(FILE.read_text(), tmp_path, Known("", KNOWN.deployments, None)) if each]
    assert made == [f"fruit: {name}" for name in ("New photos", "No sign of life", "Never began")]


@pytest.fixture(scope="module")
def fired(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployed, Received]]:
    """A project whose automations wait for seconds in place of minutes, and what arrives where its alarms go."""
    root = make_deployable(tmp_path_factory.mktemp("alarms") / "project")
    path = root / "automations.yaml"
    path.write_text(re.sub(r"within: \d+", "within: 10", path.read_text()))  # the least that Prefect takes
    with pytest.MonkeyPatch.context() as patch, webhook() as received:
        patch.chdir(root)
        patch.setenv("REGRAFT_ALARM_URL", received.address)
        with temporary_settings({PREFECT_API_URL: server.api}):
            clear()
            yield Deployed(server, set_up()), received


@pytest.mark.flow
def test_every_automation_fires_and_its_message_says_what_happened(fired: tuple[Deployed, Received]):
    deployed, received = fired
    words = "Refused: 0.91 against 0.94, 12 of 300 photos. <b>{{ 7 * 7 }}</b>"
    runs = {
        name: deployed.begin("retrain-nightly")
        for name in ("silent", "pending", "refused", "failed", "crashed", "alive")
    }
    late = deployed.post(f"deployments/{deployed.deployment('retrain-nightly')['id']}/create_flow_run", {})
    deployed.set_state(runs["pending"], "PENDING", "Pending")
    deployed.heartbeat(runs["silent"])
    deployed.heartbeat(runs["refused"])
    deployed.set_state(runs["refused"], "CANCELLED", "Refused", words)
    deployed.set_state(runs["failed"], "FAILED", "Failed", "The data folder is empty.")
    deployed.set_state(runs["crashed"], "CRASHED", "Crashed", "Exit status -9.")
    deployed.set_state(runs["alive"], "CRASHED", "Crashed", "No heartbeat.")
    deployed.set_state(runs["alive"], "RUNNING", "Running", "It was taken for dead, and is alive.")
    announce("regraft.drift", "Brightness has moved by 2.1 of its limit.", figure=2.1)
    announce("regraft.approval", "Promoted, if a person agrees.")
    announce("regraft.digest", "7 run(s) in the last seven days.")
    announce("regraft.data.changed", "12 files have come.", added=12)

    give_up = time.monotonic() + _SECONDS
    dead = (runs["silent"], runs["pending"], runs["crashed"])
    while len({message["subject"] for message in received}) < 8 or not all(map(received.crashes().__contains__, dead)):
        assert time.monotonic() < give_up, "; ".join(message["subject"] for message in received)
        time.sleep(0.1)
    refused, *again = received.about("the new model was refused")
    assert all(each["body"] == refused["body"] for each in again)  # Prefect sends a message again if it saw no answer
    assert refused["subject"] == "regraft: the new model was refused"
    assert refused["body"].startswith(words)
    assert refused["body"].endswith(f"/runs/flow-run/{runs['refused']}")
    for subject, said in {
        "a run failed": "The data folder is empty.",
        "the photos have changed": "2.1 of its limit",
        "a model waits for your answer": "if a person agrees",
        "the week": "7 run(s)",
        "a run did not start": f"/runs/flow-run/{late['id']}",
        "no run for 26 hours": "No run has come to an end for 26 hours.",
    }.items():
        assert any(said in message["body"] for message in received.about(subject)), subject
    assert all(said in received.crashes() for said in ("Exit status -9.", "No heartbeat for 90", "it never began"))
    assert runs["alive"] not in received.crashes()
    started = [run["id"] for run in deployed.runs_of("retrain-on-new-data")]
    assert started
    assert all(message["body"][-36:] in (late["id"], *started) for message in received.about("did not start"))


@pytest.mark.flow
def test_a_run_of_another_project_at_the_same_server_sets_nothing_off(fired: tuple[Deployed, Received]):
    deployed, received = fired
    stranger = deployed.begin(None)
    deployed.set_state(stranger, "FAILED", "Failed", "not of this project")
    ours = deployed.begin("retrain-nightly")
    deployed.set_state(ours, "FAILED", "Failed", "of this project")
    give_up = time.monotonic() + _SECONDS
    while not any(ours in message["body"] for message in received):  # others come late: of runs that are still due
        assert time.monotonic() < give_up
        time.sleep(0.1)
    assert not any(stranger in message["body"] for message in received)
