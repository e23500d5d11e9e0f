"""Faults around the store: a full disk, a folder that is read-only, a shared store that is not there or goes away."""

import contextlib
import http.client
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.stress.single_faults import Outcome, Scene, wait_for_shards
from tests.stress.stage_processes import Worker

_URL = "s3://bucket/store"
_UNREACHABLE = r"The shared store s3://bucket cannot be reached: .* sent by the next run"


def full_disk(scene: Scene) -> Outcome:
    """Half of the rows fit."""
    project, message = scene.project("full", empty=True), "There is no room in build/store/.* Free some"
    if not can_mount():
        # A limit on the size of files takes the place of a full disk: the system refuses to write on.
        fault = "a full disk (RLIMIT_FSIZE, because mounting is not allowed here)"
        return scene.observe(fault, project, status=1, said=message, largest_file=40_000)
    graphs = sum(path.stat().st_size for path in project.store.glob("graphs/*"))
    room = graphs + scene.source.receipt["store_bytes"] // 2
    mount("-t", "tmpfs", "-o", f"size={room}", "none", str(project.store))
    try:
        shutil.copytree(scene.source.store / "graphs", project.store / "graphs")
        return scene.observe(
            "a full disk (tmpfs)",
            project,
            status=1,
            said=message,
            repair=lambda: mount("-o", "remount,size=1g", str(project.store)),
        )
    finally:
        unmount(project.store)


def read_only(scene: Scene) -> Iterator[Outcome]:
    """A store that nobody here may write to: with everything in it, also without a record of it; and with nothing."""
    for fault, empty, status, said in (
        ("a read-only store with every row", False, 0, ""),
        ("a read-only store with something to compute", True, 1, "cannot be written to .* Make it writable"),
    ):
        project = scene.project(f"read-only{status}", empty=empty)
        shutil.rmtree(project.store / "uses", ignore_errors=True)
        with contextlib.ExitStack() as until:
            how = _write_protect(project.store, until)
            if how:
                yield scene.observe(f"{fault} ({how})", project, status=status, said=said, repair=until.close)
            else:
                yield Outcome(fault, "skipped: root may write to everything, and mounting is not allowed", skipped=True)


def _write_protect(folder: Path, until: contextlib.ExitStack) -> str:
    """Make a folder read-only until the stack is closed, and return how; empty if it cannot be done."""
    if can_mount():
        mount("--bind", str(folder), str(folder))
        until.callback(unmount, folder)
        mount("-o", "remount,ro,bind", str(folder))
        return "bind mount"
    if os.geteuid() == 0:
        return ""
    for path in [folder, *folder.rglob("*")]:
        mode = path.stat().st_mode
        path.chmod(mode & ~0o222)
        until.callback(path.chmod, mode)
    return "chmod"


def unreachable(scene: Scene) -> Outcome:
    """Nobody listens at the shared store's address; the next run goes on without it."""
    project, apart = (
        scene.project(name, empty=True, shared=shared) for name, shared in [("s3", _URL), ("no-s3", "null")]
    )
    return scene.observe(
        "a shared store that is unreachable from the start",
        project,
        status=1,
        said=_UNREACHABLE,
        repair=lambda: shutil.copy(apart.root / "params.yaml", project.root),
        environment=_environment(_free_port()),
    )


def vanished(scene: Scene) -> Iterator[Outcome]:
    """The S3 server is killed in the middle of a run, and empty when it is there again; another machine joins then.

    An empty store in the place of a known one may be a share that is not mounted, so a person says that it is meant.
    """
    fault = "the S3 endpoint killed during a run"
    if not all(map(importlib.util.find_spec, ("moto", "flask", "flask_cors", "s3fs"))):
        yield Outcome(fault, "skipped: moto[s3], flask, flask-cors and s3fs are not installed", skipped=True)
        return
    port = _free_port()
    servers = [_serve(port)]
    environment = _environment(port)
    project = scene.project("vanished", empty=True, shared=_URL)

    def kill(worker: Worker) -> None:
        wait_for_shards(worker, project, 3, ".sent.arrow")
        _end(servers[-1])

    def start_again() -> None:
        servers.append(_serve(port))
        (project.store / "regraft-shared.json").unlink()

    try:
        yield scene.observe(
            fault,
            project,
            status=1,
            said=_UNREACHABLE,
            during=kill,
            repair=start_again,
            environment=environment,
        )
        other = scene.project("joined", empty=True, shared=_URL)
        outcome = scene.observe("another machine after that", other, status=0, said="", environment=environment)
        if other.receipt["computed"] or "exit status 0, 0 of" not in outcome.happens:
            outcome.problems.append("another machine computed rows that the shared store should have had")
        yield outcome
    finally:
        _end(servers[-1])


def _serve(port: int) -> subprocess.Popen[bytes]:
    """Start an S3 server with one empty bucket."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("PUT", "/bucket")
            if connection.getresponse().status == 200:
                break
        time.sleep(0.1)
    return server


def _end(server: subprocess.Popen[bytes]) -> None:
    server.kill()
    server.wait()


def _environment(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            mount("-t", "tmpfs", "-o", "size=1m", "none", folder)
        except (OSError, subprocess.CalledProcessError):
            return False
        unmount(Path(folder))
    return True


def mount(*arguments: str) -> None:
    subprocess.run([shutil.which("mount") or "mount", *arguments], check=True, capture_output=True)


def unmount(folder: Path) -> None:
    subprocess.run([shutil.which("umount") or "umount", str(folder)], check=True, capture_output=True)
