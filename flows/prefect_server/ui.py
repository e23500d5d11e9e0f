"""`regraft serve` and `regraft prefect`: the server, and Prefect's command line logged in at it."""

import os
import socket
import stat
import sys
from pathlib import Path
from typing import NoReturn

from flows.prefect_server import guarded_server
from flows.prefect_server.connection import PORT, login
from flows.prefect_server.server_secret import HOST, make_secret, secret_path
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
        guarded_server.run(listener, secret, log_level="warning")
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
