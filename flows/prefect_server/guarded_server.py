"""A Prefect server of this user's alone: on 127.0.0.1, with a password, closed to other web pages.

python -m flows.prefect_server.guarded_server FD PARENT      the one of `regraft serve`; it ends when that process does
"""

import os
import signal
import socket
import sys
import threading
import time

from flows.prefect_server.server_guard import Guard
from flows.prefect_server.server_secret import HOST
from regraft.errors import RegraftError

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


if __name__ == "__main__":
    end_with(int(sys.argv[2]))
    run(socket.socket(fileno=int(sys.argv[1])), os.environ[SECRET], log_level="error")
