"""Kill -9 at random moments: workers that fill one store, and what the next run makes of what they left."""

import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from regraft.core.errors import RegraftError
from regraft.core.files import md5_of
from regraft.store.namespace import Namespace
from regraft.store.overview import verify
from regraft.store.shards import as_keys
from regraft.store.upkeep import collect, namespaces, open_folder
from tests.stress.stage_processes import FLUSH_ROWS, Project, Worker

_MOST_WORKERS = 3


def read_store(root: Path) -> dict[str, dict[bytes, bytes]]:
    """Return every row of a store that is there and sound: by namespace and key, the value's bytes."""
    return {name: _read(open_folder(root, None, name)) for name in namespaces(root, None)}


def _read(namespace: Namespace) -> dict[bytes, bytes]:
    rows = zip(namespace.shards, namespace.live_rows(), strict=True)
    keys = [key for shard, live in rows for key in as_keys(shard.keys[live])]
    gone = set(namespace.missing(keys))
    keys = [key for key in keys if key not in gone]
    return {key: value.tobytes() for key, value in zip(keys, namespace.read(keys), strict=True)}


@dataclass(frozen=True, slots=True)
class Reference:
    """What an undisturbed run in a store of its own gives."""

    rows: dict[str, dict[bytes, bytes]]  # as `read_store` returns them
    features: str  # MD5 of build/features.arrow
    seconds: float  # what such a run takes from "ready" to its end
    seconds_full: float  # the same where every row is in the store already

    @property
    def total(self) -> int:
        """Rows of all namespaces."""
        return sum(map(len, self.rows.values()))

    def compare(self, store: Path) -> tuple[int, int]:
        """Return how many rows a store holds, and how many of them are not bit by bit what they should be."""
        found = read_store(store)
        wrong = sum(
            value != self.rows.get(name, {}).get(key) for name, rows in found.items() for key, value in rows.items()
        )
        return sum(map(len, found.values())), wrong

    def is_complete(self, project: Project) -> bool:
        """Whether a project's store has every row, and its features.arrow is the reference's."""
        return read_store(project.store) == self.rows and md5_of(project.features) == self.features


def undisturbed(make: Callable[..., Project], folder: Path, graphs: Path | None = None) -> tuple[Project, Reference]:
    """Run the stage in a store of its own: to convert the graph if need be, from nothing, and with nothing to do.

    Args:
        make: from `project_maker`.
        folder: a new one.
        graphs: where the converted backbone may be already.
    """
    warm = make(folder / "warm")
    if graphs:
        (warm.store / "graphs").parent.mkdir(parents=True)
        (warm.store / "graphs").symlink_to(graphs.resolve())
    _timed(warm)
    project = make(folder / "reference", copy_of=warm.store, empty=True)
    seconds, seconds_full = _timed(project), _timed(project)
    return project, Reference(read_store(project.store), md5_of(project.features), seconds, seconds_full)


def _timed(project: Project) -> float:
    worker = project.start()
    if worker.wait():
        raise RegraftError(f"an undisturbed run failed: {worker.message}")
    return time.perf_counter() - worker.ready


@dataclass(slots=True)
class Tally:
    """What was done, and what was found; `problems` must stay empty."""

    kills: int = 0
    kills_during_a_flush: int = 0  # a temporary file in a namespace tells
    rounds: int = 0
    several_writers: int = 0  # rounds with two or three workers at once
    runs_beside_a_kill: int = 0  # workers that were not killed, and completed
    later_runs_completed: int = 0
    rows_compared: int = 0
    differences: int = 0
    rows_computed_twice: int = 0  # by writers at once, which each other's rows do not keep from work
    leftover_temporary_files: int = 0  # before gc
    leftover_after_gc: int = 0
    problems: list[str] = field(default_factory=list)


class Rounds:
    """Rounds of kills on one store."""

    def __init__(
        self, make: Callable[..., Project], folder: Path, source: Project, reference: Reference, *, seed: int
    ) -> None:
        self.reference, self.tally, self.random = reference, Tally(), np.random.default_rng(seed)
        self.store = folder / "store"
        first = make(folder / "0", store=self.store, copy_of=source.store, empty=True)
        self.projects = [first, *(make(folder / str(n), store=self.store) for n in range(1, _MOST_WORKERS))]

    def run(self, kills: int, *, flush_rows: int = FLUSH_ROWS, on_kill: Callable[[int], None]) -> Tally:
        """Kill until so many kills are done; after every few rounds let a run complete, and lose some shards."""
        while self.tally.kills < kills:
            for _ in range(self.random.integers(1, 5)):
                self._round(flush_rows)
                on_kill(self.tally.kills)
                if self.tally.kills >= kills:
                    break
            self._complete(flush_rows)
            self._lose_shards()
        self._complete(flush_rows)
        self._collect()
        return self.tally

    def _round(self, flush_rows: int) -> None:
        count = int(self.random.integers(2, _MOST_WORKERS + 1)) if self.random.random() < 1 / 3 else 1
        present, before = self._check(), self._rows_twice()
        workers = [project.start(flush_rows=flush_rows) for project in self.projects[:count]]
        victims = [workers[n] for n in self.random.permutation(count)[: self.random.integers(1, count + 1)]]
        missing = 1 - present / self.reference.total
        fixed, whole = self.reference.seconds_full, self.reference.seconds
        # Each worker alone would use all cores.
        expected = count * (fixed + missing * max(0.0, whole - fixed))
        moments = np.sort(self.random.uniform(0, expected, len(victims)))
        start = workers[-1].ready
        for victim, moment in zip(victims, moments, strict=True):
            time.sleep(max(0.0, start + moment - time.perf_counter()))
            self._kill(victim)
        for worker, project in zip(workers, self.projects, strict=False):
            if worker not in victims:
                self._expect_success(worker, project, "a run beside a killed one")
                self.tally.runs_beside_a_kill += 1
        self.tally.rounds += 1
        self.tally.several_writers += count > 1
        self._check()
        self.tally.rows_computed_twice += self._rows_twice() - before

    def _kill(self, victim: Worker) -> None:
        if victim.kill():
            self.tally.kills += 1
            self.tally.kills_during_a_flush += bool(list(self.store.glob(f"*-*/.*.{victim.pid}-*.tmp*")))
        elif victim.wait():
            self.tally.problems.append(f"a worker failed before its kill: {victim.message}")

    def _complete(self, flush_rows: int) -> None:
        self._expect_success(self.projects[0].start(flush_rows=flush_rows), self.projects[0], "a later run")
        self.tally.later_runs_completed += 1
        self._check()
        if read_store(self.store) != self.reference.rows:
            self.tally.problems.append("after a later run the store is not the reference's")

    def _expect_success(self, worker: Worker, project: Project, which: str) -> None:
        if worker.wait():
            self.tally.problems.append(f"{which} failed: {worker.message}")
        elif md5_of(project.features) != self.reference.features:
            self.tally.differences += 1
            self.tally.problems.append(f"{which} wrote other features than the reference")

    def _check(self) -> int:
        """Verify the store, compare every row that is there with the reference, and return how many there are."""
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                verify(self.store, None)
        except RegraftError as error:
            self.tally.problems.append(f"verify after round {self.tally.rounds}: {error} {printed.getvalue()}")
        rows, wrong = self.reference.compare(self.store)
        self.tally.rows_compared += rows
        self.tally.differences += wrong
        return rows

    def _rows_twice(self) -> int:
        opened = [open_folder(self.store, None, name) for name in namespaces(self.store, None)]
        return sum(sum(map(len, namespace.shards)) - len(namespace) for namespace in opened)

    def _lose_shards(self) -> None:
        """Remove a random part of the shards, sometimes all, so that there is work; and the records that name them."""
        share = self.random.choice([0.3, 0.6, 0.9, 1.0])
        for path in [*self.store.glob("*-*/*.arrow"), *self.store.glob("uses/*.arrow")]:
            if not path.name.startswith(".") and (path.parent.name == "uses" or self.random.random() < share):
                path.unlink()

    def _collect(self) -> None:
        """Let `gc` remove what the killed left, and nothing else."""
        self.tally.leftover_temporary_files = len(self._temporary_files())
        with contextlib.redirect_stdout(io.StringIO()):
            collect(self.store, None, {self.reference.features: "the last run"}, really=True)
        self.tally.leftover_after_gc = len(self._temporary_files())
        if self.tally.leftover_after_gc or not self.reference.is_complete(self.projects[0]):
            self.tally.problems.append("gc removed too little or too much")

    def _temporary_files(self) -> list[Path]:
        return [path for path in self.store.glob("*/.*") if ".tmp" in path.name and path.is_file()]
