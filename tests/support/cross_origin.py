"""What another web page, or another user of the machine, sends to a Prefect server in order to run a command."""

import http.client
import json
import time
import uuid
from dataclasses import dataclass

from flows.prefect_server.server_secret import HOST

_PATIENCE_SECONDS = 30.0
EVIL = "http://evil.example"
_ID = str(uuid.UUID(int=7))
_COMMAND = [{"prefect.deployments.steps.run_shell_script": {"script": "touch /tmp/owned"}}]
_JOB = {"job_configuration": {"command": "touch /tmp/owned"}, "variables": {"type": "object", "properties": {}}}
_WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as a page's script makes it."""

    name: str
    method: str
    path: str
    body: object = None
    headers: tuple[tuple[str, str], ...] = ()


# A body without a type, which a page may send anywhere without asking first: Prefect takes it for JSON.
REQUESTS = [
    Request("create a flow", "POST", "/api/flows/", {"name": "theirs"}),
    Request(
        "a work pool whose job is a command",
        "POST",
        "/api/work_pools/",
        {"name": "", "type": "process", "base_job_template": _JOB},
    ),
    Request("a deployment that runs a command", "POST", "/api/deployments/", {"name": "x", "pull_steps": _COMMAND}),
    Request("start a run", "POST", "/api/deployments/{deployment}/create_flow_run", {}),
    Request("a variable", "POST", "/api/variables/", {"name": "", "value": "x"}),
    Request("read blocks with secrets", "POST", "/api/block_documents/filter", {"include_secrets": True}),
    Request("read flows", "POST", "/api/flows/filter", {}),
    Request("delete a flow", "DELETE", f"/api/flows/{_ID}"),
    Request("read the settings", "GET", "/api/admin/settings"),
    Request("ask for a token", "GET", "/api/csrf-token?client=theirs"),
    Request("ask for permission", "OPTIONS", "/api/flows/", None, (("Access-Control-Request-Method", "POST"),)),
    Request("send events", "GET", "/api/events/in", None, tuple(_WEBSOCKET.items())),
    Request("read logs as they come", "GET", "/api/logs/out", None, tuple(_WEBSOCKET.items())),
]


def senders(port: int) -> dict[str, dict[str, str]]:
    """Return the headers by which each sender can be told; a script cannot choose them."""
    return {
        "another page": {"Host": f"{HOST}:{port}", "Origin": EVIL, "Sec-Fetch-Site": "cross-site"},
        "an old browser": {"Host": f"{HOST}:{port}", "Origin": EVIL},
        "a page whose name now means this machine": {
            "Host": f"evil.example:{port}",
            "Origin": f"{EVIL}:{port}",
            "Sec-Fetch-Site": "same-origin",
        },
        "a frame without origin": {"Host": f"{HOST}:{port}", "Origin": "null", "Sec-Fetch-Site": "cross-site"},
        "another port of this machine": {
            "Host": f"{HOST}:{port}",
            "Origin": f"http://{HOST}:{port + 1}",
            "Sec-Fetch-Site": "same-site",
        },
        "an image or a form": {"Host": f"{HOST}:{port}", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        "another user, without the password": {"Host": f"{HOST}:{port}"},
    }


class Attack:
    """All requests of one sender, in order: later ones use what earlier ones made."""

    def __init__(self, port: int, headers: dict[str, str], name: str) -> None:
        self._port, self._headers, self._name = port, headers, name
        self._flow = self._deployment = _ID

    def status_of(self, request: Request) -> int:
        """Send a request and return the status of the answer."""
        body = request.body
        if isinstance(body, dict):
            body = {key: value or self._name for key, value in body.items()}
            body |= {"flow_id": self._flow} if "pull_steps" in body else {}
        path = request.path.format(deployment=self._deployment)
        give_up = time.monotonic() + _PATIENCE_SECONDS
        status = 503  # what Prefect answers while its database is busy; a page asks again
        while status == 503 and time.monotonic() < give_up:
            status, answer = ask(self._port, request.method, path, self._headers | dict(request.headers), body)
        if request.method == "POST" and status in (200, 201):
            made = json.loads(answer)
            if request.path == "/api/flows/":
                self._flow = made["id"]
            if request.path == "/api/deployments/":
                self._deployment = made["id"]
        return status


def ask(port: int, method: str, path: str, headers: dict[str, str], body: object = None) -> tuple[int, bytes]:
    """Send a request with these headers and no others; a body has no type unless they name one."""
    content = b"" if body is None else json.dumps(body).encode()
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content or None)
        response = connection.getresponse()
        return response.status, b"" if response.status == 101 else response.read()
    finally:
        connection.close()


def statuses(port: int) -> dict[str, dict[str, int]]:
    """Return the status of every request of every sender."""
    return {
        sender: {request.name: attack.status_of(request) for request in REQUESTS}
        for number, (sender, headers) in enumerate(senders(port).items())
        for attack in [Attack(port, headers, f"name-{number}")]
    }
