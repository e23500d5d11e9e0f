"""`regraft serve`: everything that nights need on this machine, in one terminal, until Ctrl-C.

The Prefect server, deployments and automations, a worker, the watcher of new photos. What dies is started again; runs
whose process died are told of. Each part is a process of its own that ends with this one. Nothing here imports Prefect.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from flows.prefect_server.connection import PORT, login, use_no_proxy
from flows.prefect_server.dead_runs import tell_of_dead_runs, tell_of_vanished_runs
from flows.prefect_server.guarded_server import close_folder, settings, take_port
from flows.prefect_server.server_secret import HOST, make_secret, secret_path
from regraft.core.errors import Busy, RegraftError
from regraft.core.params_file import load_params
from tasks.dvc_seam import enter_dvc_project
from tasks.runs.live_runs import ended_runs, known_runs
from tasks.runs.prefect_api import Api
from tasks.stopping import Terminated, undisturbed

_ALARM_SECRET = "REGRAFT_ALARM_URL"  # noqa: S105 - a name; only the set-up needs what it holds
_LOGS = Path(".dvc", "tmp", "regraft", "logs")
_LOG_BYTES = 5_000_000  # of a log, from which on a new one is begun
_START_SECONDS = 120.0  # for the server; a busy machine needs more than a minute
_SILENT_SECONDS = 60.0  # without an answer of the server, after which it is ended and started again
_LOOK_SECONDS, _TELL_SECONDS, _STOP_SECONDS = 2.0, 15.0, 0.2
_LONGEST_PAUSE = 60.0  # between two starts of a part that always ends at once
_SOUND_SECONDS = 120.0  # a part that worked for so long is started again at once
_PATIENCE = {"worker": 45.0, "server": 15.0, "watch": 10.0}  # seconds for its runs, and then for itself, to end


@dataclass
class Part:
    """A process that is to run."""

    name: str
    start_process: Callable[[IO[bytes]], "subprocess.Popen[bytes]"]
    process: "subprocess.Popen[bytes] | None" = None
    _failures: int = 0
    _began: float = 0.0
    _not_before: float = field(default=0.0)

    def keep_running(self) -> str | None:
        """Start it if it does not run; return a line if it had ended."""
        now = time.monotonic()
        said = None
        if self.process is not None:
            if self.process.poll() is None:
                return None
            status, self.process = self.process.returncode, None
            self._wait(0 if now - self._began > _SOUND_SECONDS else self._failures + 1)
            said = f"The {self.name} has ended ({_status_in_words(status)}) and is started again. Log: {self.log}"
        if now >= self._not_before:
            try:
                self.start()
            except (RegraftError, OSError) as error:  # its port is taken, or there is no room for its log
                self._wait(self._failures + 1)
                said = f"The {self.name} cannot be started: {error} It is tried again."
        return said

    def start(self) -> None:
        """Start it; what it prints goes to its log."""
        _LOGS.mkdir(mode=0o700, parents=True, exist_ok=True)  # a traceback may quote what is nobody else's business
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as log:
            self.process = self.start_process(log)
        self._began = time.monotonic()

    def _wait(self, failures: int) -> None:
        """Let it alone for the longer, the more often in a row it failed."""
        self._failures = failures
        self._not_before = time.monotonic() + (min(_LONGEST_PAUSE, 2.0 ** min(failures, 6)) if failures else 0.0)

    def stop(self) -> None:
        """Tell it and its runs to end, and end them if they do not."""
        if self.process is None or self.process.poll() is not None:
            return
        give_up, told = time.monotonic() + _PATIENCE[self.name], set[int]()
        while (runs := self._runs()) and time.monotonic() < give_up:  # a worker that ends kills those that it has
            for run in runs - told:
                with suppress(ProcessLookupError):
                    os.kill(run, signal.SIGTERM)
            told |= runs
            time.sleep(_STOP_SECONDS)
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_PATIENCE[self.name])
        self.kill()

    def _runs(self) -> set[int]:
        """The processes of runs that it has started."""
        found = set()
        for run in known_runs():
            with suppress(OSError):
                if self.process and os.getsid(run.pid) == self.process.pid:
                    found.add(run.pid)
        return found

    def kill(self) -> None:
        """End it and what it started."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def log(self) -> Path:
        """Where what it prints is."""
        return _LOGS / f"{self.name}.log"


def serve() -> None:
    """Start all that is missing, and keep it running until Ctrl-C or SIGTERM.

    Raises:
        RegraftError: the port is taken by a program that is not ours, or prefect.yaml or automations.yaml is wrong.
        Busy: another `regraft serve` works in this folder.
    """
    from filelock import FileLock, Timeout

    root = enter_dvc_project()
    use_no_proxy()
    load_params(root / "params.yaml")  # a typing error is better told now than at night
    lock = root / ".dvc" / "tmp" / "regraft" / "serve.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    parts: list[Part] = []
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(lock, timeout=0))
        except Timeout:
            raise Busy(f"`regraft serve` works in this folder already. Look at http://{HOST}:{PORT}.") from None
        stack.callback(_stop, parts)
        _end_orphans()
        try:
            api = _server(parts)
            _set_up(api)
            parts += [Part(name, _child(name, api)) for name in ("worker", "watch")]
            for part in parts[-2:]:
                part.start()
            _say_where_to_look()
            _look_after(root, parts, api)
        except KeyboardInterrupt as stop:
            how = "SIGTERM" if isinstance(stop, Terminated) else "Ctrl-C"
            print(f"\n{how}: runs are told to stop, then the worker and the server. Photos that come wait.", flush=True)
    print("All has ended.", flush=True)


def _end_orphans() -> None:
    """Stop the runs whose worker belonged to a `regraft serve` that was killed: that worker led their session."""
    ended = {run.run for run in ended_runs()}
    for run in known_runs():
        if run.run in ended or run.started_by == "hand":
            continue
        with suppress(OSError):
            try:
                os.kill(os.getsid(run.pid), 0)
            except ProcessLookupError:
                os.kill(run.pid, signal.SIGTERM)
                print(f"A killed `regraft serve` has left {run.named}. It is told to stop.", flush=True)


def _stop(parts: list[Part]) -> None:
    """End the parts in order, the runs of the worker first; who told this process to end may tell it more than once."""
    with undisturbed():
        for part in reversed(parts):
            part.stop()


def _server(parts: list[Part]) -> Api:
    """Return the server of this user, which is started if it does not run."""
    if found := login(None):
        print("A server of yours runs already; this uses it.", flush=True)
        return Api(found["PREFECT_API_URL"], found["PREFECT_API_AUTH_STRING"])
    path = secret_path()
    close_folder(path.parent)
    secret = make_secret(path)
    server = Part("server", _server_process(secret))
    parts.append(server)
    server.start()
    api = Api(f"http://{HOST}:{PORT}/api", secret)
    _wait_for(server, api)
    return api


def _wait_for(server: Part, api: Api) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while not api.answers():
        if (server.process and server.process.poll() is not None) or time.monotonic() > give_up:
            lines = server.log.read_text(errors="replace").splitlines()[-5:]
            raise RegraftError(
                f"the Prefect server did not start. Its log, {server.log}, ends so:\n" + "\n".join(lines)
            )
        time.sleep(0.2)


def _set_up(api: Api) -> None:
    """Deployments and automations, by a process of its own, which needs Prefect."""
    command, environment = _command_of("setup", api)
    ended = subprocess.run(command, env=environment, check=False)
    if ended.returncode:
        raise RegraftError("deployments and automations could not be set up; the lines above say why.")


def _say_where_to_look() -> None:
    params = load_params(Path("params.yaml"))
    print(
        f"\nRuns:        http://{HOST}:{PORT}/runs\nPassword:    the line in {secret_path()}\n"
        f"Photos:      {params.nights.watch or params.paths.raw} is watched; what arrives there starts a run\n"
        f"Every night: the schedule in prefect.yaml; alarms: automations.yaml\n"
        f"Morning:     {params.paths.reports / 'history.html'}\nLogs:        {_LOGS}\nCtrl-C ends all of it.\n",
        flush=True,
    )


def _look_after(root: Path, parts: list[Part], api: Api) -> None:
    told, heard, problem = 0.0, time.monotonic(), ""
    while True:
        for part in parts:
            if said := part.keep_running():
                print(said, flush=True)
        now = time.monotonic()
        if now - told > _TELL_SECONDS:
            told = now
            if api.answers():
                heard = now
                found = _tell(root, api)
                if found and found != problem:  # once, however often one looks
                    print(found, flush=True)
                problem = found
            elif now - heard > _SILENT_SECONDS:
                heard = now
                _revive(parts)
        time.sleep(_LOOK_SECONDS)


def _tell(root: Path, api: Api) -> str:
    """Tell of runs that died; return why that is impossible now, which is no reason to end all that runs."""
    try:
        params = load_params(root / "params.yaml")  # somebody may be editing it at this moment
        for line in [*tell_of_dead_runs(params, api), *tell_of_vanished_runs(api)]:
            print(line, flush=True)
    except (RegraftError, OSError) as error:
        return f"Runs that died cannot be told of: {error} All else goes on."
    return ""


def _revive(parts: list[Part]) -> None:
    """End a server that does not answer, so that it is started again; take over from one that was another process's."""
    server = next((part for part in parts if part.name == "server"), None)
    if server is None:
        server = Part("server", _server_process(make_secret(secret_path())))
        parts.insert(0, server)
    print("The Prefect server does not answer; it is started again.", flush=True)
    server.kill()


def _status_in_words(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _server_process(secret: str) -> Callable[[IO[bytes]], "subprocess.Popen[bytes]"]:
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


def _child(name: str, api: Api) -> Callable[[IO[bytes]], "subprocess.Popen[bytes]"]:
    """Return what starts a part that is logged in at the server."""

    def start(log: IO[bytes]) -> "subprocess.Popen[bytes]":
        command, environment = _command_of(name, api)
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    return start


def _command_of(name: str, api: Api) -> tuple[list[str], dict[str, str]]:
    """Return the command of such a part, and its environment, which has the login: all users can list commands."""
    command = [sys.executable, "-m", "flows.prefect_server.child", str(os.getpid()), name]
    environment = dict(os.environ) if name == "setup" else _environment()
    return command, environment | {"PREFECT_API_URL": api.url, "PREFECT_API_AUTH_STRING": str(api.login)}


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != _ALARM_SECRET}
