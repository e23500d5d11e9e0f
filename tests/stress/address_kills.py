"""Kill -9 of workers that share production in a bucket, at any moment, while the others go on and somebody reads.

    python -m tests.stress.address_kills [--kills 200] [--writers 3]

A worker promotes by the gate, rolls back, and adds to the history of runs, as fast as it can. It notes here what it was
told is done. Whoever is killed: a fresh worker finds a whole model that the log names, and at last every change that
was told as done is there once. The last line is one JSON object. It needs moto[s3], flask, flask-cors and s3fs.
"""

import argparse
import json
import multiprocessing
import os
import random
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import fsspec

from regraft.core.errors import InputsChanged, RegraftError
from regraft.core.files import sha256_of
from regraft.production import exclusive
from regraft.production.exclusive import found
from regraft.production.registry import Grounds, Production
from regraft.production.remote_registry import RemoteRegistry
from regraft.production.run_history import Row, add_rows, read_rows
from tests.support.at_address import worker

ADDRESS = "s3://bucket/production"
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["s3fs", "filelock", "pandas", "regraft.production.run_history", __name__])


@dataclass
class Tally:
    """What was done, and what was found; `problems` must stay empty."""

    kills: int = 0
    rows: int = 0  # that workers were told are written
    promotions: int = 0
    rollbacks: int = 0
    refused: int = 0  # promotions: another worker had changed production meanwhile
    reads: int = 0
    pointer: int = 0  # serial number at the end
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def serve(port: int) -> None:
    """Speak S3, one request after the other, so that a condition and its write are one."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, run_simple

    WSGIRequestHandler.log = lambda *_: None  # type: ignore[method-assign]
    run_simple("127.0.0.1", port, DomainDispatcherApplication(create_backend_app), threaded=False)


def work(root: Path, variables: dict[str, str], over: Event) -> None:
    """Change production until that is over, and note what was told as done."""
    os.environ |= variables  # the server that forks this process may have been started before
    exclusive._LOOK_SECONDS = 0.0  # every change is a command of its own
    folder, notes, random_ = worker(root, ADDRESS), root / "done.jsonl", random.Random(os.getpid())
    while not over.is_set():
        number = f"{root.name}-{os.getpid()}-{time.monotonic_ns()}"
        kind = random_.choice(["row", "row", "promotion", "promotion", "rollback"])
        try:
            if kind == "row":
                add_rows(folder, [Row(run=number, started=datetime.now(UTC), name="Completed")])
            elif kind == "promotion":
                _promote(folder, root / "model.onnx", number)
            else:
                with suppress(InputsChanged):
                    Production(folder).rollback(by=f" by {number}")
        except InputsChanged:
            kind = "refused"
        except RegraftError as error:
            if "there is no earlier model" in str(error):
                continue
            kind = f"problem: {error}"
        with notes.open("a") as file:
            file.write(json.dumps([kind, number]) + "\n")


def _promote(folder: Path, path: Path, number: str) -> None:
    path.write_text(number)
    production = Production(folder)
    production.promote(path, number, keep=2, grounds=Grounds(sha256_of(path), production.digest, approved_by="a test"))


def look(folder: Path, tally: Tally) -> Production | None:
    """Find production as a fresh worker does."""
    tally.reads += 1
    try:
        production = Production(worker(folder / f"reader-{tally.reads}", ADDRESS))
        standing = production.standing()
        named = production.history()[-1].sha256 if production.history() else None
        if standing.problem or standing.digest != named or production.log.read()[1]:
            tally.problems.append(f"standing {standing}, named {named}")
        return production
    except RegraftError as error:
        tally.problems.append(str(error))
    return None


def run(folder: Path, kills: int, writers: int, set_variable: Callable[[str, str], None]) -> Tally:
    """Kill workers that share production in a bucket of a server that is started for it, and named to this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    variables |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    for name, value in variables.items():
        set_variable(name, value)
    server = _context.Process(target=serve, args=(port,), daemon=True)
    server.start()
    tally, over, began = Tally(), _context.Event(), time.monotonic()
    try:
        _make_bucket(port)
        found(worker(folder / "first", ADDRESS), patience=1)
        roots = [folder / f"worker-{number}" for number in range(writers)]
        processes = [_started(root, variables, over) for root in roots]
        while tally.kills < kills:
            time.sleep(random.uniform(0.1, 1.5))
            chosen = random.randrange(writers)
            processes[chosen].kill()
            processes[chosen].join()
            tally.kills += 1
            processes[chosen] = _started(roots[chosen], variables, over)
            look(folder, tally)
        over.set()
        for process in processes:
            process.join(60)
        _compare(folder, roots, tally)
    finally:
        server.kill()
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    tally.seconds = round(time.monotonic() - began, 1)
    return tally


def _started(root: Path, variables: dict[str, str], over: Event) -> BaseProcess:
    root.mkdir(parents=True, exist_ok=True)
    process = _context.Process(target=work, args=(root, variables, over), daemon=True)
    process.start()
    return process


def _make_bucket(port: int) -> None:
    for _ in range(300):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.1)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # one of another server
    fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")


def _compare(folder: Path, roots: list[Path], tally: Tally) -> None:
    """Compare what workers were told with what is there."""
    done = [json.loads(line) for root in roots for line in (root / "done.jsonl").read_text().splitlines()]
    told = {kind: [number for each, number in done if each == kind] for kind in {each for each, _ in done}}
    tally.problems += [kind for kind in told if kind.startswith("problem")]
    tally.rows, tally.promotions = len(told.get("row", [])), len(told.get("promotion", []))
    tally.rollbacks, tally.refused = len(told.get("rollback", [])), len(told.get("refused", []))
    production = look(folder, tally)
    if production is None:
        return
    words = [change.words for change in production.history()]
    runs = [row.run for row in read_rows(production.folder)]
    for name, wanted, there in (("row", told.get("row", []), runs), ("promotion", told.get("promotion", []), words)):
        tally.problems += [
            f"{name} {number}: {there.count(number)} times" for number in wanted if there.count(number) != 1
        ]
        tally.problems += [f"{name} twice: {each}" for each in set(there) if there.count(each) > 1]
    registry = RemoteRegistry(Path(), ADDRESS)
    pointer, objects = registry.pointer(), registry.remote.list("objects")
    if pointer:
        tally.pointer = pointer.serial
        tally.problems += [
            name
            for name, stored in pointer.files.items()
            if stored.object not in objects or objects[stored.object].size != stored.size
        ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--writers", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = run(Path(folder), arguments.kills, arguments.writers, os.environ.__setitem__)
    print(json.dumps(asdict(tally)))
    raise SystemExit(1 if tally.problems else 0)
