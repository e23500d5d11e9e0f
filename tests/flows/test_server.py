"""Which server a run reports to; where there is none, it needs none."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from flows.prefect_server import connection as server
from flows.prefect_server import guarded_server, server_secret
from flows.prefect_server.server_secret import PROOF_PATH, proof_of
from regraft.core.errors import RegraftError
from tasks.runs.prefect_api import Api, named_api

NAMED = "http://127.0.0.1:9/api"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, a home without settings, and no server where `regraft serve` listens."""
    for name in ("PREFECT_API_URL", "PREFECT_PROFILES_PATH", "PREFECT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(server, "PORT", 9)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def named(url: str | None) -> Iterator[None]:
    """Prefect's settings name this server, or none."""
    with temporary_settings({PREFECT_API_URL: url} if url else {}, restore_defaults={PREFECT_API_URL}):
        yield


def test_without_settings_and_without_a_server_of_ones_own_a_run_reports_to_nobody(capsys) -> None:
    with named(None), server.connected() as is_there:
        assert (is_there, PREFECT_LOGGING_TO_API_ENABLED.value()) == (False, False)
    assert capsys.readouterr().err == ""


def test_a_server_that_is_named_but_away_is_one_line(capsys) -> None:
    with named(NAMED), server.connected() as is_there:
        assert (is_there, PREFECT_LOGGING_TO_API_ENABLED.value()) == (False, False)
    assert (
        capsys.readouterr().err
        == f"The Prefect server at {NAMED} does not answer, so this run does not report to it.\n"
    )


SECRET = "regraft:" + 43 * "s"
Answers = dict[str, bytes]


class Handler(BaseHTTPRequestHandler):
    """A program on the port of `regraft serve`; it remembers every byte that it is sent."""

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


def test_a_run_logs_in_at_the_users_own_server_without_sending_the_secret_to_find_it(program: type[Handler]) -> None:
    address = f"http://127.0.0.1:{server.PORT}/api"
    with named(None), server.connected() as is_there:
        assert (is_there, named_api()) == (True, Api(address, SECRET))
    assert SECRET not in "".join(program.heard)


def test_a_named_server_that_answers_is_reported_to(program: type[Handler], monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{server.PORT}/api"
    monkeypatch.setattr(server, "PORT", 9)
    with named(address), server.connected() as is_there:
        assert (is_there, PREFECT_API_URL.value()) == (True, address)


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
    assert server.login(None) is None
    assert "regraft:" not in "".join(program.heard)


def test_a_strange_prefect_server_is_named_to_the_person(program: type[Handler], monkeypatch, capsys) -> None:
    monkeypatch.setattr(program, "secret", None)
    server.login(None)
    assert "was not started by your `regraft serve`, so this run does not report to" in capsys.readouterr().err


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
    monkeypatch.setattr(guarded_server, "login", lambda named: None)
    with pytest.raises(RegraftError, match=r"no server of yours answers on port 4200\. Start `regraft serve`"):
        guarded_server.run_prefect(["version"])


def test_a_port_that_is_taken_is_named(program: type[Handler]) -> None:
    with pytest.raises(RegraftError, match=rf"port {server.PORT} .*cannot be used .*Perhaps `regraft serve` runs"):
        guarded_server.serve(server.PORT)
