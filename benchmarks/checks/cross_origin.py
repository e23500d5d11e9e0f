"""Cross-origin requests: how many commands of other web pages the server of `regraft serve` obeys.

    python -m benchmarks.checks.cross_origin

Starts the server with an empty database, and sends it 13 requests of seven senders, among them a page of another
origin, a page whose name now points to this machine (DNS rebinding), and another user without the password. Answers
other than 401 and 403 count as obeyed; the exit status is 1 if there are any.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

_HOST, _EVIL = "127.0.0.1", "http://evil.example"
_START_SECONDS = 90.0
_ID = str(uuid.UUID(int=7))
_COMMAND = [{"prefect.deployments.steps.run_shell_script": {"script": "touch /tmp/owned"}}]
_JOB = {"job_configuration": {"command": "touch /tmp/owned"}, "variables": {"type": "object", "properties": {}}}
_WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
# Method, path, body, headers. A body without a type, which a page may send without a preflight: Prefect takes it for
# JSON.
_REQUESTS: list[tuple[str, str, Any, dict[str, str]]] = [
    ("POST", "/api/flows/", {"name": "theirs"}, {}),
    ("POST", "/api/work_pools/", {"name": "theirs", "type": "process", "base_job_template": _JOB}, {}),
    ("POST", "/api/deployments/", {"name": "theirs", "flow_id": _ID, "pull_steps": _COMMAND}, {}),
    ("POST", f"/api/deployments/{_ID}/create_flow_run", {}, {}),
    ("POST", "/api/variables/", {"name": "theirs", "value": "x"}, {}),
    ("POST", "/api/block_documents/filter", {"include_secrets": True}, {}),
    ("POST", "/api/flows/filter", {}, {}),
    ("DELETE", f"/api/flows/{_ID}", None, {}),
    ("GET", "/api/admin/settings", None, {}),
    ("GET", "/api/csrf-token?client=theirs", None, {}),
    ("OPTIONS", "/api/flows/", None, {"Access-Control-Request-Method": "POST"}),
    ("GET", "/api/events/in", None, _WEBSOCKET),
    ("GET", "/api/logs/out", None, _WEBSOCKET),
]


def _senders(port: int) -> dict[str, dict[str, str]]:
    """Headers by which each sender can be told; a script cannot choose them."""
    own, cross = {"Host": f"{_HOST}:{port}"}, {"Sec-Fetch-Site": "cross-site"}
    rebound = {"Host": f"evil.example:{port}", "Origin": f"{_EVIL}:{port}", "Sec-Fetch-Site": "same-origin"}
    return {
        "another page": own | cross | {"Origin": _EVIL},
        "an old browser": own | {"Origin": _EVIL},
        "a page after DNS rebinding": rebound,
        "a frame without origin": own | cross | {"Origin": "null"},
        "another port": own | {"Origin": f"http://{_HOST}:{port + 1}", "Sec-Fetch-Site": "same-site"},
        "an image or a form": own | cross | {"Sec-Fetch-Mode": "no-cors"},
        "another user": own,
    }


def _ask(port: int, method: str, path: str, headers: dict[str, str], body: Any = None) -> int:
    """The status of the answer to a request with these headers and no others."""
    content = None if body is None else json.dumps(body).encode()
    connection = http.client.HTTPConnection(_HOST, port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if content is not None:
            connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content)
        return connection.getresponse().status
    finally:
        connection.close()


def _wait(port: int, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError):
            _ask(port, "GET", "/api/health", {"Host": f"{_HOST}:{port}"})
            return
        time.sleep(0.2)
    sys.exit("the Prefect server did not start")


def main() -> None:
    """Print the statuses of each sender, and how many requests were obeyed."""
    with socket.socket() as free:
        free.bind((_HOST, 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"PREFECT_HOME": home, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        start = f"from flows.prefect_server.guarded_server import serve; serve({port})"
        command = [sys.executable, "-c", start]
        server = subprocess.Popen(command, cwd=Path(__file__).parents[2], env=environment, stdout=subprocess.DEVNULL)
        try:
            _wait(port, server)
            found = {
                sender: [_ask(port, method, path, headers | more, body) for method, path, body, more in _REQUESTS]
                for sender, headers in _senders(port).items()
            }
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait()
    for sender, statuses in found.items():
        print(f"{sender:28}", *statuses)
    statuses = [status for row in found.values() for status in row]
    obeyed = sum(status not in (401, 403) for status in statuses)
    print(f"obeyed {obeyed} of {len(statuses)}")
    sys.exit(1 if obeyed else 0)


if __name__ == "__main__":
    main()
