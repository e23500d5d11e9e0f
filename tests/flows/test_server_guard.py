"""Who gets through to the application behind the guard, told by the headers that a script cannot choose."""

import asyncio
from typing import Any

import pytest

from flows.prefect_server.guarded_server import Guard
from flows.prefect_server.server_secret import PROOF_PATH, proof_of

PORT = 4200
HOST = ("Host", "127.0.0.1:4200")
HERE = ("Origin", "http://127.0.0.1:4200")
SECRET = "regraft:secret"


def visit(
    *headers: tuple[str, str], kind: str = "http", method: str = "POST", path: str = "/api/flows/", query: str = ""
) -> list[dict[str, Any]]:
    """Return what the guard, or the application behind it, sends back."""
    sent: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"ALLOW")]})
        await send({"type": "http.response.body", "body": b"inside"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing to receive")

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": kind, "path": path, "headers": raw, "query_string": query.encode()}
    asyncio.run(Guard(application, port=PORT, secret=SECRET)(scope | {"method": method}, receive, send))
    return sent


def status(*headers: tuple[str, str], **how: Any) -> int:
    return visit(*headers, **how)[0]["status"]


@pytest.mark.parametrize(
    "headers",
    [
        [HOST],
        [HOST, HERE],
        [HOST, HERE, ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors")],
        [HOST, ("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate")],
    ],
)
def test_the_servers_own_pages_and_programs_get_through(headers: list[tuple[str, str]]) -> None:
    assert status(*headers) == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "")],
        [("Host", "localhost:4200")],
        [("Host", "127.0.0.1")],
        [("Host", "127.0.0.1:42000")],
        [("Host", "127.0.0.1:4200.evil.example")],
        [("Host", "evil.example:4200")],
        [("Host", "127.0.0.1:4200@evil.example")],
        [("Host", "[::1]:4200")],
        [("Host", "0.0.0.0:4200")],
        [("Host", "127.0.0.1:4200,evil.example")],
        [HOST, HOST],
        [HOST, ("Host", "evil.example:4200")],
        [("Host", "evil.example:4200"), ("X-Forwarded-Host", "127.0.0.1:4200")],
    ],
)
def test_another_host_is_refused(headers: list[tuple[str, str]]) -> None:
    assert status(*headers) == 403
    assert visit(*headers, kind="websocket") == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "https://127.0.0.1:4200",
        "http://127.0.0.1",
        "http://127.0.0.1:4201",
        "http://127.0.0.1:4200.evil.example",
        "http://evil.example#http://127.0.0.1:4200",
        "http://localhost:3000",
        "http://127.0.0.1:4200/",
        "file://",
        "chrome-extension://abc",
        "http://127.0.0.1:4200\xe9",
    ],
)
def test_another_origin_is_refused(origin: str) -> None:
    assert status(HOST, ("Origin", origin)) == 403
    assert status(HOST, HERE, ("Origin", origin)) == 403
    assert status(HOST, ("Origin", origin), method="OPTIONS") == 403
    assert visit(HOST, ("Origin", origin), kind="websocket") == [{"type": "websocket.close", "code": 1008}]


def test_every_answer_forbids_frames_and_foreign_scripts_whatever_the_application_says() -> None:
    for answer in (visit(HOST), visit(("Host", "evil.example"))):
        headers = dict(answer[0]["headers"])
        assert headers[b"x-frame-options"] == b"DENY"
        assert b"script-src 'self';" in headers[b"content-security-policy"]
        assert len(headers) == len(answer[0]["headers"])


def test_the_guard_proves_that_it_knows_the_secret_to_whom_it_lets_through() -> None:
    (_, body) = visit(HOST, method="GET", path=PROOF_PATH, query="nonce=abc")
    assert body["body"].decode() == proof_of(SECRET, "abc", PORT)
    assert status(("Host", "evil.example:4200"), method="GET", path=PROOF_PATH, query="nonce=abc") == 403


def test_a_refusal_repeats_nothing_that_was_sent() -> None:
    (_, body) = visit(("Host", "<script>"))
    assert body["body"] == b"Refused: expected the address http://127.0.0.1:4200."
