"""`regraft serve --only setup`: what prefect.yaml and automations.yaml say, at a Prefect server that is there.

Everything is made or brought up to date by its name, so a second run changes nothing. What came from the files and is
in them no more is removed; what a person made is never touched, and what a person paused stays paused.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import prefect.settings
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings
from pydantic import SecretStr

from flows.prefect_server.automations import MADE_HERE, Server, Wanted, build_automation, read_automations
from flows.prefect_server.connection import login
from flows.prefect_server.deployments import set_up_deployments, set_up_pool
from flows.prefect_server.events import FILE, Project, announce, read_name, read_prefect_file
from regraft.core.errors import RegraftError, printable

ALARM_URL = "REGRAFT_ALARM_URL"  # a secret: whoever has it can write to the channel
_TEMPLATE = {"text": "{{subject}}\n{{body}}", "subject": "{{subject}}", "body": "{{body}}"}


def set_up_here() -> list[str]:
    """Set up the server that PREFECT_API_URL or the Prefect profile names, else that of `regraft serve`.

    Returns:
        A line about each thing.

    Raises:
        RegraftError: there is no server, or a file is wrong; the message says what and where.
    """
    with _at_the_server():
        return set_up()


def set_up() -> list[str]:
    """As `set_up_here`, at the server that Prefect's settings of this moment name."""
    prefect_file = read_prefect_file()
    project = Project(read_name(prefect_file), FILE.parent.resolve())
    wanted, deployments = read_automations(), prefect_file.get("deployments") or []
    pools = sorted({each["work_pool"]["name"] for each in deployments if (each.get("work_pool") or {}).get("name")})
    try:
        with get_client(sync_client=True) as client:
            lines = [set_up_pool(client, name) for name in pools]
            ids, said = set_up_deployments(client, deployments, project)
            block, about_block = _find_block(client, wanted.block_name)
            server = Server(str(PREFECT_UI_URL.value() or "").rstrip("/"), ids, block)
            lines += said + about_block[:1] + _set_up_automations(client, wanted, project, server) + about_block[1:]
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise RegraftError(
            f"the Prefect server at {PREFECT_API_URL.value()} said no, or nothing: {_cause(error)}"
        ) from None
    # From here on 26 hours without a run are too many, also where there never was one.
    announce("regraft.set-up", "deployments and automations were set up")
    return lines


def _set_up_automations(client: SyncPrefectClient, wanted: Wanted, project: Project, server: Server) -> list[str]:
    built = [build_automation(each, project, server) for each in wanted.automations]  # all are right, or none is made
    there: dict[str, Automation] = {}
    lines, superfluous = [], []
    for found in client.read_automations():
        if MADE_HERE in found.tags and project.tag in found.tags:
            superfluous += [found] if found.name in there else []
            there.setdefault(found.name, found)
    for automation in filter(None, built):
        found = there.pop(automation.name, None)
        if found is None:
            client.create_automation(automation)
            lines.append(f"automation {automation.name}: created")
            continue
        paused = "" if found.enabled else ", and paused in the UI"
        if _essence(found) == _essence(automation):
            lines.append(f"automation {automation.name}: unchanged{paused}")
        else:
            # Prefect leaves out of an update what was not set by name, and the server misses the trigger's posture.
            named = automation.model_dump(exclude={"owner_resource"}) | {"enabled": found.enabled}
            client.update_automation(found.id, AutomationCore.model_validate(named))
            lines.append(f"automation {automation.name}: updated{paused}")
    for found in [*there.values(), *superfluous]:
        client.delete_automation(found.id)
        lines.append(f"automation {found.name}: removed")
    return lines


def _essence(automation: AutomationCore) -> dict[str, Any]:
    """What of an automation is in the file."""
    return AutomationCore.model_validate(automation.model_dump()).model_dump(exclude={"enabled", "owner_resource"})


def _find_block(client: SyncPrefectClient, name: str) -> tuple[UUID | None, list[str]]:
    """Return the block that messages go through, and lines about it: the first to begin with, others to end with.

    Raises:
        RegraftError: there are two, or it sends no messages, or REGRAFT_ALARM_URL is no address.
    """
    if os.environ.get(ALARM_URL):
        _make_block(name, os.environ[ALARM_URL])
    answer = client.request("POST", "/block_documents/filter", json={"block_documents": {"name": {"any_": [name]}}})
    found = [BlockDocument.model_validate(each) for each in answer.json()]
    if not found:
        return None, [
            f"notification block {name}: there is none",
            f"NOBODY WILL BE TOLD of refused, failed or missing runs: there is no notification block {name}.",
            f"Put the address of a Slack webhook, another webhook or a mailbox into the environment variable "
            f"{ALARM_URL} and run this again, or make the block in the UI under Blocks. docs/nights.md tells how.",
        ]
    if len(found) > 1:
        kinds = ", ".join(each.block_type_name or "?" for each in found)
        raise RegraftError(f"there are {len(found)} blocks named {name} ({kinds}). Rename or delete all but one.")
    (block,) = found
    if not block.block_schema or "notify" not in block.block_schema.capabilities:
        raise RegraftError(f"the block {name} is a {block.block_type_name}, which sends no messages. Name another one.")
    return block.id, [f"notification block {name}: {block.block_type_name}"]


def _make_block(name: str, address: str) -> None:
    """Make the block of this name, or give the one that is there this address, which is kept as a secret.

    A web address other than Slack's gets JSON with `text`, `subject` and `body`. Everything else goes to Apprise, which
    Prefect's Slack block is made of: `mailtos://user:password@example.com?to=me@example.com` is a mailbox.

    Raises:
        RegraftError: it is no address; the message does not repeat it.
    """
    parts = urlsplit(address)
    if parts.scheme in ("http", "https") and not (parts.hostname or "").startswith("hooks.slack"):
        block = CustomWebhookNotificationBlock(
            name=name,
            url="{{address}}",
            json_data=_TEMPLATE,
            secrets={"address": address},  # type: ignore[arg-type]
        )
        other = SlackWebhook
    else:
        from apprise import Apprise

        if parts.scheme in ("mailto", "mailtos") and "format=" not in parts.query:
            # Else a mailbox takes the message for HTML, and it may quote names of photos.
            address += f"{'&' if parts.query else '?'}format=text"
        if not Apprise.instantiate(address, suppress_exceptions=True):
            raise RegraftError(
                "REGRAFT_ALARM_URL is no address that Apprise knows. Expected https://hooks.slack.com/services/..., "
                "another https:// address, or mailtos://user:password@host?to=address."
            )
        block = SlackWebhook(url=SecretStr(address))
        other = CustomWebhookNotificationBlock
    block.save(name, overwrite=True)
    with suppress(ValueError):
        other.delete(name)  # of a former address


@contextmanager
def _at_the_server() -> Iterator[None]:
    named = PREFECT_API_URL.value()
    own = login(named)
    if not own and not named:
        raise RegraftError("no Prefect server of yours answers. Start `regraft serve` first.")
    with temporary_settings({getattr(prefect.settings, name): value for name, value in (own or {}).items()}):
        yield


def _cause(error: Exception) -> str:
    answer = getattr(error, "response", None)
    return printable(f"{error}" if answer is None else f"{answer.status_code} {answer.text}")
