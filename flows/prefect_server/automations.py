"""automations.yaml: read, checked, and in the form that Prefect's API takes."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.events.schemas.automations import AutomationCore
from pydantic import ValidationError

from flows.prefect_server.events import Project, read_yaml
from regraft.core.errors import RegraftError

FILE = Path("automations.yaml")
MADE_HERE = "automations.yaml"  # the tag of what came from this file; whatever has none is somebody else's
_OWN_KEYS = ("message", "run")
_KEYS = ("name", "description", "enabled", "trigger", "actions", *_OWN_KEYS)
_LINK = "{% if flow_run %}{ui}/runs/flow-run/{{ flow_run.id }}{% else %}{ui}/dashboard{% endif %}"


@dataclass(frozen=True, slots=True)
class Server:
    """What the automations have to know of the server that they are made at."""

    ui: str  # where people look at it
    deployments: dict[str, UUID]  # by name
    block: UUID | None  # through which messages are sent; None where nobody is told


@dataclass(frozen=True, slots=True)
class Wanted:
    """The automations of the file."""

    block_name: str
    automations: list[dict[str, Any]]


def read_automations(path: Path = FILE) -> Wanted:
    """Read the file.

    Raises:
        RegraftError: it is missing, or does not say what is expected; the message names the automation and the key.
    """
    found = read_yaml(path, "the alarms")
    if not isinstance(found, dict) or not isinstance(found.get("automations"), list):
        raise RegraftError(f"{path} must have the keys `notify` and `automations`, a list. Restore it from git.")
    _check_keys(found, ("notify", "states", "automations"), f"{path}")
    names: list[str] = []
    for number, automation in enumerate(found["automations"], start=1):
        if not isinstance(automation, dict) or not isinstance(automation.get("name"), str):
            raise RegraftError(f"{path}: automation {number} must have a `name`.")
        where = f"{path}: automation '{automation['name']}'"
        _check_keys(automation, _KEYS, where)
        if "trigger" not in automation or not {"actions", *_OWN_KEYS} & set(automation):
            raise RegraftError(f"{where} must have a `trigger`, and `actions`, a `message` or `run`.")
        if automation["name"] in names:
            raise RegraftError(f"{where} is there twice. Each needs a name of its own.")
        names.append(automation["name"])
    if not isinstance(found.get("notify"), str):
        raise RegraftError(
            f"{path}: `notify` must be the name of a notification block. Found: {found.get('notify')!r}."
        )
    return Wanted(found["notify"], found["automations"])


def build_automation(wanted: dict[str, Any], project: Project, server: Server) -> AutomationCore | None:
    """Return an automation of the file as Prefect's API takes it; None where all that it does is to tell nobody.

    Raises:
        RegraftError: a key or a value is none of Prefect's, or a deployment is not in prefect.yaml.
    """
    where = f"{FILE}: automation '{wanted['name']}'"
    actions = [*wanted.get("actions", []), *_own_actions(wanted, project, server, where)]
    if not actions:
        return None
    ready = {key: value for key, value in wanted.items() if key not in _OWN_KEYS}
    ready |= {
        "name": f"{project.name}: {wanted['name']}",
        "tags": [MADE_HERE, project.tag],
        "trigger": _of_project(wanted["trigger"], project, where),
        "actions": actions,
    }
    try:
        # Prefect passes over what it does not know, and the automation would then wait for something else.
        return AutomationCore.model_validate(ready, extra="forbid")
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(str(part) for part in wrong["loc"])
        raise RegraftError(f"{where} has a wrong `{place}`: {wrong['msg']}. Found: {wrong['input']!r:.200}.") from None


def _own_actions(wanted: dict[str, Any], project: Project, server: Server, where: str) -> Iterable[dict[str, Any]]:
    if "run" in wanted:
        if wanted["run"] not in server.deployments:
            known = ", ".join(server.deployments)
            raise RegraftError(
                f"{where}: `run` must be a deployment of prefect.yaml: {known}. Found: {wanted['run']!r}."
            )
        yield {"type": "run-deployment", "deployment_id": server.deployments[wanted["run"]]}
    if "message" in wanted:
        message = wanted["message"]
        if not isinstance(message, dict) or set(message) != {"subject", "body"}:
            raise RegraftError(f"{where}: `message` must have the keys `subject` and `body`, and no others.")
        if server.block is not None:
            yield {
                "type": "send-notification",
                "block_document_id": server.block,
                "subject": f"{project.name}: {message['subject']}",
                "body": f"{message['body']}\n{_LINK.replace('{ui}', server.ui)}",
            }


def _of_project(trigger: Any, project: Project, where: str) -> dict[str, Any]:
    """A trigger that nothing of another project sets off, those within it likewise."""
    if not isinstance(trigger, dict):
        raise RegraftError(f"{where}: `trigger` must have keys such as `expect`. Found: {trigger!r}.")
    if isinstance(inner := trigger.get("triggers"), list):
        return trigger | {"triggers": [_of_project(each, project, where) for each in inner]}
    related = trigger.get("match_related", [])
    own = {"prefect.resource.id": f"prefect.tag.{project.tag}"}
    flat = {key: _flat(value) for key, value in trigger.items() if key in ("after", "expect", "for_each")}
    return trigger | flat | {"match_related": [own, *(related if isinstance(related, list) else [related])]}


def _flat(values: Any) -> Any:
    if not isinstance(values, list):
        return values
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def _check_keys(found: dict[str, Any], known: Iterable[str], where: str) -> None:
    if unknown := [str(key) for key in found if key not in known]:
        raise RegraftError(f"{where} has an unknown key `{unknown[0]}`. Known are: {', '.join(known)}.")
