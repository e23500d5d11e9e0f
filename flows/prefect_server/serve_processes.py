"""How the parts of `regraft serve` are started: each in a session of its own, with its output in a log."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import IO

from flows.prefect_server.connection import PORT
from flows.prefect_server.guarded_server import settings
from flows.prefect_server.ui import take_port
from tasks.runs.prefect_api import Api

_SECRET = "REGRAFT_ALARM_URL"  # noqa: S105 - a name; only the set-up needs what it holds


def server_process(secret: str) -> Callable[[IO[bytes]], "subprocess.Popen[bytes]"]:
    """Return what starts the Prefect server.

    Raises:
        RegraftError: of what is returned: the port is taken.
    """

    def start(log: IO[bytes]) -> "subprocess.Popen[bytes]":
        with take_port(PORT) as listener:
            descriptor = listener.fileno()
            return subprocess.Popen(
                [sys.executable, "-m", "flows.prefect_server.guarded_server", str(descriptor), str(os.getpid())],
                pass_fds=[descriptor],
                env=_environment() | settings(PORT, secret),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this process, which ends the parts in order
            )

    return start


def child(name: str, api: Api) -> Callable[[IO[bytes]], "subprocess.Popen[bytes]"]:
    """Return what starts a part that is logged in at the server."""

    def start(log: IO[bytes]) -> "subprocess.Popen[bytes]":
        command, environment = command_of(name, api)
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    return start


def command_of(name: str, api: Api) -> tuple[list[str], dict[str, str]]:
    """Return the command of such a part, and its environment, which has the login: all users can list commands."""
    command = [sys.executable, "-m", "flows.prefect_server.child", str(os.getpid()), name]
    environment = dict(os.environ) if name == "setup" else _environment()
    return command, environment | {"PREFECT_API_URL": api.url, "PREFECT_API_AUTH_STRING": str(api.login)}


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != _SECRET}
