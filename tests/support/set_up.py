"""A project that can be set up at a Prefect server, with flows that do nothing, and what the server then has of it."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.prefect_server import SOURCE, Server

_FLOW = '''\
from prefect import flow


@flow
def {name}({parameters}):
    """Do nothing."""
'''
_FLOWS = {
    "retrain": "promote: bool = True, commit: bool = False",
    "verify": "keep: int = 10, stale_days: float = 30",
    "score": "",
}


@dataclass(frozen=True, slots=True)
class Deployed:
    """A project that was set up, in the folder that this process is in."""

    server: Server
    lines: list[str]  # what the set-up said

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that is in a file of the project."""
        path = Path(file)
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def post(self, path: str, body: Any) -> Any:
        """Ask the API."""
        return self.server.post(path, body)

    def patch(self, path: str, body: Any) -> None:
        """Change something, as the UI does."""
        self.server.ask("PATCH", path, body)

    def deployment(self, name: str) -> dict[str, Any]:
        """Return a deployment, or nothing."""
        wanted = {"deployments": {"name": {"any_": [name]}}}
        return next(iter(self.post("deployments/filter", wanted)), {})

    def automations(self) -> list[dict[str, Any]]:
        """Return all automations."""
        return self.post("automations/filter", {})

    def automation(self, name: str) -> dict[str, Any]:
        """Return the automation that the UI calls so, or nothing."""
        return next((each for each in self.automations() if each["name"] == name), {})

    def begin(self, deployment: str | None) -> str:
        """Return the id of a run that has begun, by nobody; without a deployment it is one of another project."""
        if deployment is None:
            flow = self.post("flows/", {"name": "retrain"})
            run = self.post("flow_runs/", {"flow_id": flow["id"], "tags": ["project:other"]})
        else:
            run = self.post(f"deployments/{self.deployment(deployment)['id']}/create_flow_run", {})
        self.set_state(run["id"], "RUNNING", "Running")
        return run["id"]

    def set_state(self, run: str, type: str, name: str, message: str = "") -> None:
        """Give a run a state."""
        self.post(
            f"flow_runs/{run}/set_state", {"state": {"type": type, "name": name, "message": message}, "force": True}
        )

    def heartbeat(self, run: str) -> None:
        """Let a run give a sign of life, as Prefect's engine does."""
        tags = self.server.ask("GET", f"flow_runs/{run}")["tags"]
        related = [{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"} for tag in tags]
        event = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": "prefect.flow-run.heartbeat"}
        self.post(
            "events", [event | {"resource": {"prefect.resource.id": f"prefect.flow-run.{run}"}, "related": related}]
        )

    def runs_of(self, deployment: str) -> list[dict[str, Any]]:
        """Return the runs of a deployment."""
        return self.post("flow_runs/filter", {"deployments": {"name": {"any_": [deployment]}}})


def make_deployable(root: Path) -> Path:
    """Write the files that a set-up reads, into a folder that is not there yet."""
    (root / "flows").mkdir(parents=True)
    for file in ("prefect.yaml", "automations.yaml"):
        shutil.copy(SOURCE / file, root)
    for flow, parameters in _FLOWS.items():
        (root / "flows" / f"{flow}.py").write_text(_FLOW.format(name=flow, parameters=parameters))
    return root


def clear() -> None:
    """Remove deployments, automations and blocks of other tests, whose names are the same, from the server."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:  # it tries again where the server is busy
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)
        for automation in client.read_automations():
            client.delete_automation(automation.id)
        for block in client.read_block_documents():
            if block.name and block.name.endswith("-alarms"):
                client.delete_block_document(block.id)
