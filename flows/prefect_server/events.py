"""Events about this project at the Prefect server: what automations.yaml waits for.

Several projects may report to one server. So each has a name, the one in prefect.yaml, and whatever is about it carries
its tag: deployments and their runs, runs by hand, events. Automations look at nothing without the tag.
"""

import re
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.prefect_server.connection import PORT
from flows.prefect_server.server_secret import HOST, knows, read_secret, secret_path
from regraft.core.errors import RegraftError, safe_text
from tasks.runs.prefect_api import Api, ServerAway, named_api

FILE = Path("prefect.yaml")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,59}")


@dataclass(frozen=True, slots=True)
class Project:
    """This project, as the server knows it."""

    name: str
    folder: Path

    @property
    def tag(self) -> str:
        """What its deployments, runs and events are tagged with."""
        return f"project:{self.name}"


def this_project() -> Project:
    """Return the project of the folder that this process is in.

    Raises:
        RegraftError: prefect.yaml gives it no name.
    """
    return Project(read_name(read_prefect_file()), Path.cwd())


def read_prefect_file() -> dict[str, Any]:
    """Return what prefect.yaml says.

    Raises:
        RegraftError: it is missing, or not YAML.
    """
    found = read_yaml(FILE, "the deployments")
    if not isinstance(found, dict):
        raise RegraftError(f"{FILE} must have keys such as `name` and `deployments`. Restore it from git.")
    return found


def read_yaml(path: Path, contents: str) -> Any:
    """Return what a YAML file says.

    Args:
        path: of the file.
        contents: what is in it, for whoever lost it.

    Raises:
        RegraftError: it is missing, or not YAML.
    """
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RegraftError(f"{path} does not exist. Restore it from git: it has {contents}.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise RegraftError(f"{path} is not valid YAML: {' '.join(str(error).split())}. Fix that line.") from None


def read_name(prefect_file: dict[str, Any]) -> str:
    """Return the project's name.

    Raises:
        RegraftError: there is none, or one that cannot be a tag's.
    """
    name = prefect_file.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RegraftError(f"`name` in {FILE} must be letters, digits, `.`, `-` and `_`. Found: {name!r}.")
    return name


def announce(event: str, words: str, **numbers: Any) -> bool:
    """Tell the Prefect server of something that automations wait for; within seconds, and whatever happens.

    Args:
        event: its name, `regraft.data.changed` for instance.
        words: for a person; they stand in the message.
        numbers: what JSON can hold.

    Returns:
        Whether the server was told. False where there is none, or where it does not answer.
    """
    try:
        api = _server()
        if api is None:
            return False
        api.post("events", [_event(this_project(), event, words, numbers)])
    except (ServerAway, RegraftError):
        return False
    return True


def flow_run_event(project: Project, event: str, flow_run: str) -> dict[str, Any]:
    """Return an event about a run, as Prefect's own are."""
    return {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": {"prefect.resource.id": f"prefect.flow-run.{flow_run}"},
        "related": [{"prefect.resource.id": f"prefect.tag.{project.tag}", "prefect.resource.role": "tag"}],
        "payload": {},
    }


def _event(project: Project, event: str, words: str, numbers: dict[str, Any]) -> dict[str, Any]:
    related = [{"prefect.resource.id": f"prefect.tag.{project.tag}", "prefect.resource.role": "tag"}]
    if flow_run := _flow_run():
        related.append({"prefect.resource.id": f"prefect.flow-run.{flow_run}", "prefect.resource.role": "flow-run"})
    return {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": {
            "prefect.resource.id": f"regraft.project.{project.name}",
            "prefect.resource.name": project.name,
            "regraft.folder": str(project.folder),
        },
        "related": related,
        "payload": {"words": safe_text(words), **numbers},
    }


def _flow_run() -> str | None:
    prefect = sys.modules.get("prefect")
    return prefect.runtime.flow_run.id if prefect else None


def _server() -> Api | None:
    """The server that is named, logged in; else the one of `regraft serve`, if it runs."""
    named, own = named_api(), f"http://{HOST}:{PORT}/api"
    if named and (named.login or named.url not in (own, own.replace(HOST, "localhost"))):
        return named
    secret = read_secret(secret_path())
    return Api(own, secret) if secret and knows(secret, PORT) else named
