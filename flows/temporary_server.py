"""The server that Prefect starts for a run where none is: here with a password, and gone when the run is gone."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from flows import guarded_server
from flows.server_secret import HOST

_SOURCE = Path(__file__).parents[1]


class TemporaryServer(SubprocessASGIServer):
    """Prefect's temporary server, guarded. Prefect keeps one instance: once this is made, Prefect starts this one."""

    secret: str
    _listener: socket.socket | None = None

    def find_available_port(self) -> int:
        """Take a port at once: between choosing and listening another user could take it, and be told the secret."""
        if self._listener:
            self._listener.close()
        self._listener = socket.socket()
        self._listener.bind((HOST, 0))
        return self._listener.getsockname()[1]

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        assert self._listener is not None
        assert self.port is not None
        descriptor = self._listener.fileno()
        path = os.pathsep.join(filter(None, [str(_SOURCE), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.guarded_server", str(descriptor), str(os.getpid())],
            pass_fds=[descriptor],
            env={
                **os.environ,
                **get_current_settings().to_environment_variables(exclude_unset=True),
                **guarded_server.settings(self.port, self.secret),
                "PREFECT_SERVER_UI_ENABLED": "false",
                "PREFECT__SERVER_EPHEMERAL": "1",
                "PYTHONPATH": path,
            },
        )
        self._listener.close()  # the other process has it now
        self._listener = None
        return process


def prepare(secret: str) -> None:
    """Make sure that the server which Prefect starts when it needs one is a guarded one."""
    TemporaryServer().secret = secret
