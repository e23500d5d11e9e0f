"""A Prefect server of this user's alone: on 127.0.0.1, with a password, closed to other web pages.

python -m flows.prefect_server.guarded_server FD PARENT      the one of `regraft serve`; it ends when that process does
"""

import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qs

from flows.prefect_server.connection import PORT, login
from flows.prefect_server.server_secret import HOST, PROOF_PATH, make_secret, proof_of, secret_path
from regraft.core.errors import RegraftError


def serve(port: int = PORT) -> None:
    """Start the Prefect server on this machine, and serve until Ctrl-C."""
    listener = take_port(port)
    path = secret_path()
    close_folder(path.parent)
    secret = make_secret(path)
    print(
        f"\nPrefect:    http://{HOST}:{port}\nPassword:   the line in {path}\n"
        "\nThe page asks for it once per browser; `regraft retrain` and `regraft prefect` find it by themselves.\n"
        "Whoever has it can run commands as you.\n",
        flush=True,
    )
    try:
        run(listener, secret, log_level="warning")
    except KeyboardInterrupt:
        print("\nThe server has stopped.")


def run_prefect(arguments: list[str]) -> NoReturn:
    """Become Prefect's command line, logged in by the environment: arguments are visible to every user."""
    log_in()
    # What a worker starts as `python` is the Python that Regraft is installed in.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    os.execv(sys.executable, [sys.executable, "-m", "prefect", *arguments])  # noqa: S606 - no shell is what we want


def log_in() -> None:
    """Let this process and those that it starts log in at the server of `regraft serve`, or use the one that is named.

    Raises:
        RegraftError: there is neither.
    """
    named = _named_server()
    settings = login(named)
    if not settings and not named:
        raise RegraftError(
            f"no server of yours answers on port {PORT}. Start `regraft serve` in another terminal first."
        )
    os.environ.update(settings or {})


def _named_server() -> str | None:
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value()


def take_port(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else nobody gets the port for a minute after us
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise RegraftError(
            f"port {port} of {HOST} cannot be used ({error.strerror}). Perhaps `regraft serve` runs already, or "
            "another Prefect server: stop that one first."
        ) from None
    return listener


def close_folder(folder: Path) -> None:
    """Keep other users out of Prefect's folder: who may write to its database commands the worker."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise RegraftError(f"{folder} belongs to another user. Set PREFECT_HOME to a folder of your own.")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
        print(f"{folder} was open to other users (mode {stat.S_IMODE(found.st_mode):04o}); it is yours alone now.")


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Prefect's pages need nothing from elsewhere and no script of their own but files. Artifacts show photos as data: URLs.
_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-frame-options": b"DENY",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}

SECRET = "PREFECT_SERVER_API_AUTH_STRING"  # noqa: S105 - a name
_LAST_WORDS_SECONDS = 10


def settings(port: int, secret: str) -> dict[str, str]:
    """Return the environment variables that such a server needs."""
    return {
        SECRET: secret,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port}",
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        # Else a page of ours would log in at the server that PREFECT_API_URL names.
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",
    }


def run(listener: socket.socket, secret: str, *, log_level: str) -> None:
    """Serve until the process is told to end.

    Args:
        listener: bound to `HOST`, not listening yet.
        secret: from `server_secret`; the whole environment of this process gets it.
        log_level: of uvicorn.

    Raises:
        RegraftError: settings of Prefect in a file contradict those that are needed.
    """
    port = listener.getsockname()[1]
    os.environ.update(settings(port, secret))
    os.umask(0o077)  # the database holds what runs say, and who may write to it commands the worker
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    api = get_current_settings().server.api
    password = api.auth_string.get_secret_value() if api.auth_string else None
    if (password, api.csrf_protection_enabled, api.cors_allowed_origins) != (secret, True, f"http://{HOST}:{port}"):
        raise RegraftError(
            "a file with settings of Prefect (.env, prefect.toml, pyproject.toml or a profile) sets server.api's "
            "auth_string, csrf_protection_enabled or cors_allowed_origins to something else. Remove them there."
        )
    guard = Guard(create_app(final=True), port=port, secret=secret)  # type: ignore[arg-type]
    config = uvicorn.Config(
        guard,  # type: ignore[arg-type]
        lifespan="on",
        log_level=log_level,
        proxy_headers=False,
        timeout_keep_alive=api.keepalive_timeout,
        ws_ping_interval=api.websocket_ping_interval,
        ws_ping_timeout=api.websocket_ping_timeout,
    )
    uvicorn.Server(config).run(sockets=[listener])


def end_with(parent: int) -> None:
    """End this process soon after the one that started it, however that one ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LAST_WORDS_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Guard:
    """An ASGI application that refuses requests of foreign pages and hands on the others."""

    def __init__(self, app: App, *, port: int, secret: str) -> None:
        self._app, self._port, self._secret = app, port, secret
        self._host = f"{HOST}:{port}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif problem := self._problem(scope["headers"]):
            await _refuse(scope["type"], problem, send)
        elif scope["type"] == "http" and scope["path"] == PROOF_PATH:
            nonce = parse_qs(scope["query_string"].decode("ascii", "replace")).get("nonce", [""])[0]
            await _answer(200, proof_of(self._secret, nonce, self._port), send)
        else:
            await self._app(scope, receive, _with_headers(send))

    def _problem(self, headers: list[tuple[bytes, bytes]]) -> str | None:
        def values(name: bytes) -> list[bytes]:
            return [value.strip().lower() for given, value in headers if given.lower() == name]

        # A page at a name that its owner lets point to 127.0.0.1 is of one origin with us; only Host tells.
        # At localhost the pages would be of another origin than the API that they ask.
        if values(b"host") != [self._host]:
            return f"expected the address http://{HOST}:{self._port}"
        if any(origin != b"http://" + self._host for origin in values(b"origin")):
            return "requests of other web pages are refused"
        return None


def _with_headers(send: Send) -> Send:
    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [header for header in message.get("headers", []) if header[0].lower() not in _HEADERS]
            message["headers"] = [*others, *_HEADERS.items()]
        await send(message)

    return send_more


async def _refuse(kind: str, problem: str, send: Send) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # before it was accepted: status 403
    else:
        await _answer(403, f"Refused: {problem}.", send)


async def _answer(status: int, text: str, send: Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


if __name__ == "__main__":
    end_with(int(sys.argv[2]))
    run(socket.socket(fileno=int(sys.argv[1])), os.environ[SECRET], log_level="error")
