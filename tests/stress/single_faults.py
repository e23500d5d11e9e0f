"""One fault at a time, done to a store: what the stage makes of it, what a person reads, and what the next run does."""

import contextlib
import io
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft.core.files import md5_of
from tests.stress.kills import Reference
from tests.stress.stage_processes import Project, Worker

_SHARD = re.compile(r"[0-9a-f]{16}-\d+-\d+-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row of the table."""

    fault: str
    happens: str
    message: str = ""
    wrong: int = 0  # values that were read, or written to features.arrow, and are not the reference's
    problems: list[str] = field(default_factory=list)  # whatever else is not as it should be
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """Where faults happen."""

    make: Callable[..., Project]  # from `project_maker`
    folder: Path
    source: Project  # whose store is full
    reference: Reference

    def project(self, name: str, **settings: Any) -> Project:
        """Return a new project with a copy of the full store, or with `empty=True` of its graphs."""
        return self.make(self.folder / name, copy_of=self.source.store, **settings)

    def observe(
        self,
        fault: str,
        project: Project,
        *,
        status: int,
        said: str | None,
        during: Callable[[Worker], None] = lambda worker: None,
        repair: Callable[[], object] = lambda: None,
        **start: Any,
    ) -> Outcome:
        """Run the stage, repair what is at fault, and run it again.

        Args:
            fault: in words.
            project: the fault is there already, or `during` does it.
            status: the expected exit status.
            said: a regular expression for what a person must read; empty for nothing at all, None where TensorFlow
                writes a page about itself.
            during: called while the first run is at work.
            repair: called between the runs.
            start: for `Project.start`; both runs have the environment.
        """
        worker = project.start(**start)
        during(worker)
        found, message = worker.wait(), worker.message
        problems = []
        if found != status or "Traceback" in message:
            problems.append(f"{fault}: expected exit status {status}. Received: {found}, {message}")
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed):
            present, wrong = self.reference.compare(project.store)
        message = " ".join(f"{message} {printed.getvalue()}".split())
        if said is None:
            message = "TensorFlow's own"
        elif not (re.search(said, message) if said else not message):
            problems.append(f"{fault}: expected a message like {said!r}. Received: {message!r}")
        if project.features.exists():
            wrong += md5_of(project.features) != self.reference.features
        first = f"exit status {found}, {present} of {self.reference.total} rows are in the store"
        if not found:
            first = f"exit status 0, {project.receipt['computed']} of {project.receipt['rows']} views computed"
        repair()
        again = project.start(environment=start.get("environment"))
        if again.wait() or not self.reference.is_complete(project):
            problems.append(f"{fault}: the next run does not give the reference: {again.message}")
            return Outcome(fault, f"{first}; the next run fails", _short(message), wrong, problems)
        second = f"the next run: exit status 0, {project.receipt['computed']} computed, all as the reference"
        return Outcome(fault, f"{first}; {second}", _short(message), wrong, problems)


def _short(message: str) -> str:
    return _SHARD.sub("<shard>", message)


def faults_of_files(scene: Scene, *, quick: bool) -> Iterator[Outcome]:
    """Damage in the store's files, and files that do not belong there."""
    aside = r"<?[^ ]+ is damaged\. It is kept as [^ ]+\.damaged, and its rows are computed again"
    cases: list[tuple[str, str, Callable[[Path], None], str]] = [
        ("a flipped bit in a value", "features", lambda path: _flip(path, sum(_values(path)) // 2), aside),
        (
            "a flipped bit in a value at the cut",
            "activations",
            lambda path: _flip(path, sum(_values(path)) // 2),
            aside,
        ),
        ("a flipped bit in the key column", "features", lambda path: _flip(path, _values(path)[0] // 2), aside),
        ("a flipped bit in the header", "features", lambda path: _flip(path, 40), aside),
        ("a flipped bit in the footer", "features", lambda path: _flip(path, path.stat().st_size - 40), aside),
        (
            "a truncated shard",
            "features",
            lambda path: _write(path, path.read_bytes()[: path.stat().st_size // 2]),
            aside,
        ),
        ("an empty shard", "features", lambda path: _write(path, b""), aside),
        ("a foreign file", "features", lambda path: _write(path.with_name("notes.txt"), b"mine"), ""),
        (
            "a foreign file that is named .arrow",
            "features",
            lambda path: _write(path.with_name("my.arrow"), b"mine"),
            "",  # no name of ours: it is left alone
        ),
        (
            "a shard of another namespace",
            "features",
            lambda path: _write(next(path.parents[1].glob("activations-*")) / path.name, path.read_bytes()),
            aside,
        ),
        ("half a namespace.json", "features", lambda path: _halve(path.with_name("namespace.json")), ""),
        ("half a use record", "features", lambda path: _halve(next(path.parents[1].glob("uses/*.arrow"))), ""),
    ]
    for number, (fault, kind, damage, said) in enumerate(cases):
        project = scene.project(f"file{number}")
        damage(sorted(project.store.glob(f"{kind}-*/*.arrow"))[0])
        yield scene.observe(fault, project, status=0, said=said)
    if not quick:  # converting the backbone again takes a while
        project = scene.project("graph")
        _flip(next(project.store.glob("graphs/*.onnx")), 1_000_000)
        yield scene.observe("a flipped bit in the converted backbone", project, status=0, said=None)


def store_deleted(scene: Scene) -> Outcome:
    """The whole folder goes while rows are written."""
    project = scene.project("deleted", empty=True)

    def delete(worker: Worker) -> None:
        wait_for_shards(worker, project, 2)
        shutil.rmtree(project.store, ignore_errors=True)

    return scene.observe(
        "the store folder deleted during a run", project, status=1, said="removed while", during=delete, flush_rows=8
    )


def wait_for_shards(worker: Worker, project: Project, count: int, ending: str = ".arrow") -> None:
    """Wait until a run has written so many shards, or has ended."""
    while worker.is_running and len(list(project.store.glob(f"features-*/[!.]*{ending}"))) < count:
        worker.pause()


def _values(path: Path) -> tuple[int, int]:
    """Where the values of a shard begin and end; its name says it."""
    start, stop = path.name.split("-")[1:3]
    return int(start), int(stop)


def _flip(path: Path, position: int) -> None:
    contents = bytearray(path.read_bytes())
    contents[position] ^= 1
    _write(path, bytes(contents))


def _halve(path: Path) -> None:
    _write(path, path.read_bytes()[: path.stat().st_size // 2])


def _write(path: Path, contents: bytes) -> None:
    path.write_bytes(contents)
