"""Which server a run reports to, found out without Prefect: the same answer as Prefect's own."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows import server, server_secret, ui
from flows.server_secret import PROOF_PATH, proof_of
from regraft.errors import RegraftError

NAMED = "http://127.0.0.1:9/api"
PROFILES = (
    f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{NAMED}"\n[profiles.other]\nPREFECT_LOGGING_LEVEL = "INFO"\n'
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, a home without settings, and no server where `make ui` listens."""
    for name in ("PREFECT_API_URL", "PREFECT_PROFILES_PATH", "PREFECT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(server, "PORT", 9)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prefect_has_one() -> bool:
    """What Prefect makes of the same settings."""
    from prefect.settings import Settings

    return Settings().api.url is not None


def test_without_settings_and_without_make_ui_no_server_is_expected(root: Path, folder: Path) -> None:
    (folder / "pyproject.toml").write_text((root / "pyproject.toml").read_text())
    assert (server.is_expected(), prefect_has_one()) == (False, False)


def test_the_environment_may_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NAMED)
    assert (server.is_expected(), prefect_has_one()) == (True, True)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (".env", f"PREFECT_API_URL={NAMED}\n"),
        ("prefect.toml", f'[api]\nurl = "{NAMED}"\n'),
        ("pyproject.toml", f'[tool.prefect]\napi.url = "{NAMED}"\n'),
        ("home/profiles.toml", PROFILES),
    ],
)
def test_a_file_may_name_one(folder: Path, path: str, text: str) -> None:
    (folder / path).write_text(text)
    assert (server.is_expected(), prefect_has_one()) == (True, True)


def test_another_profile_may_be_chosen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "home/profiles.toml").write_text(PROFILES)
    monkeypatch.setenv("PREFECT_PROFILE", "other")
    assert (server.is_expected(), prefect_has_one()) == (False, False)


def test_profiles_that_cannot_be_read_are_left_to_prefect(folder: Path) -> None:
    (folder / "home/profiles.toml").write_text("active =")
    assert server.is_expected()


SECRET = "regraft:" + 43 * "s"
Answers = dict[str, bytes]


class Handler(BaseHTTPRequestHandler):
    """A program on the port of `make ui`; it remembers every byte that it is sent."""

    answers: Answers
    heard: list[str]
    port_of_proof: int
    secret: str | None

    def do_GET(self) -> None:
        self.heard.append(f"{self.path}\n{self.headers}")
        if self.path.startswith(PROOF_PATH) and self.secret:
            self.respond(proof_of(self.secret, self.path.partition("nonce=")[2], self.port_of_proof).encode())
        else:
            self.respond(self.answers.get(self.path, b""))

    def respond(self, body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def program(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    """A program that says of itself that it is a Prefect server in good health, and this user's secret."""
    (folder / "home/regraft-login").write_text(SECRET)
    (folder / "home/regraft-login").chmod(0o600)
    with HTTPServer(("127.0.0.1", 0), Handler) as local:
        threading.Thread(target=local.serve_forever, daemon=True).start()
        monkeypatch.setattr(server, "PORT", local.server_port)
        Handler.answers, Handler.heard = {"/api/health": b"true"}, []
        Handler.secret, Handler.port_of_proof = SECRET, local.server_port
        yield Handler
        local.shutdown()


def test_the_users_own_server_is_expected_and_logged_in_at(program: type[Handler]) -> None:
    assert server.is_expected()
    address = f"http://127.0.0.1:{server.PORT}/api"
    assert server.login(None) == {"PREFECT_API_URL": address, "PREFECT_API_AUTH_STRING": SECRET}
    assert SECRET not in "".join(program.heard)


@pytest.mark.parametrize(
    "cheat",
    [
        {"secret": None},
        {"secret": "regraft:" + 43 * "x"},
        {"port_of_proof": 4201},  # it asked the real server, on another port, for an answer
        {"secret": None, "answers": {}},
    ],
)
def test_a_program_that_does_not_know_the_secret_gets_neither_it_nor_the_run(
    program: type[Handler], cheat: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cheat.items():
        monkeypatch.setattr(program, name, value)
    assert (server.is_expected(), server.login(None)) == (False, None)
    assert "regraft:" not in "".join(program.heard)


def test_a_strange_prefect_server_is_named_to_the_person(program: type[Handler], monkeypatch, capsys) -> None:
    monkeypatch.setattr(program, "secret", None)
    server.login(None)
    assert "was not started by your `make ui`, so this run does not report to it" in capsys.readouterr().err


def test_another_program_is_not_worth_a_word(program: type[Handler], monkeypatch, capsys) -> None:
    monkeypatch.setattr(program, "secret", None)
    monkeypatch.setattr(program, "answers", {"/api/health": b"hello"})
    server.login(None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}/api", "http://localhost:{port}/api/"])
def test_the_local_server_may_be_named_in_the_settings(program: type[Handler], address: str) -> None:
    assert server.login(address.format(port=server.PORT)) == server.login(None) is not None


@pytest.mark.parametrize(
    "address",
    [
        "https://127.0.0.1:{port}/api",
        "http://127.0.0.1:1/api",
        "http://127.0.0.1.evil.example:{port}/api",
        "http://127.0.0.1@evil.example:{port}/api",
        "http://evil.example/?http://127.0.0.1:{port}/api",
        "http://[::1]:{port}/api",
        "http://127.0.0.1:port/api",
        "http://0.0.0.0:{port}/api",
    ],
)
def test_the_secret_goes_to_no_other_address(program: type[Handler], address: str) -> None:
    assert server.login(address.format(port=server.PORT)) is None
    assert program.heard == []


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_no_proxy_hears_the_secret(program: type[Handler], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Prefect's client would send all that is meant for 127.0.0.1 through it."""
    monkeypatch.setenv("NO_PROXY", "elsewhere.example")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv(name, f"http://127.0.0.1:{server.PORT}")
    assert server.login(None)
    import httpx

    with httpx.Client() as client:
        assert type(client._transport_for_url(httpx.URL(f"http://127.0.0.1:{server.PORT}/api"))) is httpx.HTTPTransport
        assert client._transport_for_url(httpx.URL("http://127.0.0.1/")) is client._transport
    assert os.environ["NO_PROXY"] == "elsewhere.example,127.0.0.1"


def test_a_program_that_answers_one_byte_at_a_time_does_not_hold_a_run_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_secret, "_PATIENCE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection = listener.accept()[0]
            with connection, suppress(OSError):
                while True:
                    connection.sendall(b"H")
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        started = time.monotonic()
        assert not server_secret.knows(SECRET, listener.getsockname()[1])
        assert time.monotonic() - started < 5


def test_without_a_server_prefects_command_line_says_what_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "login", lambda named: None)
    with pytest.raises(RegraftError, match=r"no server of yours answers on port 4200\. Start `make ui`"):
        ui.run_prefect(["version"])


def test_a_port_that_is_taken_is_named(program: type[Handler]) -> None:
    with pytest.raises(RegraftError, match=rf"port {server.PORT} .*cannot be used .*Perhaps `make ui` runs"):
        ui.serve(server.PORT)
