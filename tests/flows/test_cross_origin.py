"""What other web pages and other users send to our server, which refuses it."""

import base64
import http.client
import json
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.prefect_server import Server, running_server
from tests.support.project import clean_environment

pytestmark = pytest.mark.flow
EVIL = "http://evil.example"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the user whose server ours is. Prefect's folder in it was open to everybody."""
    home = tmp_path_factory.mktemp("home")
    (home / "prefect").mkdir(mode=0o755)
    return home


@pytest.fixture(scope="module")
def ours(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of `regraft serve`."""
    with running_server(tmp_path_factory.mktemp("ours"), clean_environment(home), guarded=True) as server:
        yield server


def login(server: Server) -> dict[str, str]:
    """The headers of somebody who knows the password."""
    assert server.password
    return {
        "Host": f"127.0.0.1:{server.port}",
        "Authorization": f"Basic {base64.b64encode(server.password.encode()).decode()}",
    }


def ask(port: int, headers: dict[str, str]) -> tuple[int, bytes]:
    """Ask for the flows, with these headers."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("POST", "/api/flows/filter", "{}", headers)
        response = connection.getresponse()
        return response.status, response.read()


def test_nobody_without_the_password_is_obeyed_and_no_other_page_with_it(ours: Server) -> None:
    assert ask(ours.port, {})[0] in (401, 403)
    assert ask(ours.port, login(ours) | {"Origin": EVIL})[0] == 403
    assert ask(ours.port, login(ours) | {"Host": f"evil.example:{ours.port}"})[0] == 403


def test_who_knows_the_password_needs_a_token_to_change_something(ours: Server) -> None:
    status, answer = ask(ours.port, login(ours))
    assert (status, json.loads(answer)) == (403, {"detail": "Missing CSRF token."})


@pytest.mark.parametrize("path", ["/api/events/in", "/api/events/out", "/api/logs/out"])
@pytest.mark.parametrize("token", ["", "regraft:wrong"])
def test_a_websocket_without_the_password_is_closed(ours: Server, path: str, token: str) -> None:
    with connect(f"ws://127.0.0.1:{ours.port}{path}", subprotocols=["prefect"], proxy=None) as socket:  # type: ignore[list-item]
        socket.send(json.dumps({"type": "auth", "token": token}))
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)


def test_a_websocket_with_the_password_is_served(ours: Server) -> None:
    address = f"ws://127.0.0.1:{ours.port}/api/events/in"
    with connect(address, subprotocols=["prefect"], proxy=None) as socket:  # type: ignore[list-item]
        socket.send(json.dumps({"type": "auth", "token": ours.password}))
        assert json.loads(socket.recv(timeout=20)) == {"type": "auth_success"}


def test_another_page_cannot_read_answers(ours: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=20)
    connection.request("GET", "/api/health", headers={"Origin": EVIL})
    assert connection.getresponse().getheader("access-control-allow-origin") is None
    connection.close()


def test_the_pages_may_load_and_ask_nothing_from_elsewhere(ours: Server) -> None:
    """Prefect's pages send what a person does to a service for statistics, unless they are kept from it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ours.port}/", timeout=20) as response:
        policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["frame-ancestors"]) == ("'self'", "'self'", "'none'")


def test_the_database_and_the_password_are_the_users_alone(ours: Server, home: Path) -> None:
    assert ours.password == (home / "prefect/regraft-login").read_text().strip()
    paths = [home / "prefect", *(home / "prefect").iterdir()]
    assert {path.name for path in paths} >= {"prefect.db", "regraft-login"}
    assert [path.name for path in paths if path.stat().st_mode & 0o077] == []
