"""One list, worked on by a cluster: what all kinds of work have in common.

A worker that is like this process is told once what to do, by a job, and is then given parts of the list. What it
answers for a part comes back as it is done, in any order.
"""

import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Protocol

from regraft.cluster.connection import Cluster, Workers
from regraft.cluster.distribution import Distribution
from regraft.cluster.handshake import Facts, differences, facts_of
from regraft.cluster.steps import Call, Part, PushedOut, Steps, Unprepared
from regraft.core.errors import RegraftError

_ITEMS = 512  # most in a part: what a lost worker costs
_FORGET_SECONDS = 5.0  # for workers to forget a list
_PARTS = 4  # of each worker at least, so that all of them end at about the same time


@dataclass(frozen=True, slots=True)
class Seat:
    """What a worker has to work with."""

    threads: int  # that it may use
    neighbours: int  # workers on its machine, which share its memory, this one among them
    store: Path | None  # the store's folder, where this worker sees it too and may write to it

    @property
    def folder(self) -> Path:
        """The store's folder, or else one of this worker, which Dask removes with it."""
        return self.store or own_folder()


Work = Callable[[Sequence[Any]], Any]  # of the items of a part


class Job(Protocol):
    """What workers are told: a data class of plain values that can be pickled.

    Its module, those of functions that it is given as `partial`, and what they import decide the answers.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def begin(self, seat: Seat) -> Work:
        """Make a worker ready, and return what it does with a part; RegraftError says why it cannot."""
        ...


@dataclass(frozen=True, slots=True)
class _Order:
    number: str  # of this list; a worker that has another one, or none, was not prepared
    job: Job
    store: Path  # absolute
    token: str  # name of a file that is in the store's folder now


def work_on(
    cluster: Cluster, job: Job, items: Sequence[Any], *, store: Path, name: Callable[[Any], str]
) -> Generator[Any, None, None]:
    """Have workers do a job, and yield what they answer for each part, in the order in which parts are done.

    Args:
        cluster: who works.
        job: what to do; each worker gets it once.
        items: what to do it with; they are handed out in parts.
        store: the store's folder, which workers may see too.
        name: of an item, for people.

    Raises:
        NotInSight: no worker has the files that it would need.
        RegraftError: the scheduler cannot be reached or has gone away, no worker is like this process, an item ends its
            workers, or a part fails on several.
    """
    store = store.absolute()
    store.mkdir(parents=True, exist_ok=True)
    modules = _modules_of(job)
    with tempfile.NamedTemporaryFile(dir=store, prefix=".cluster-") as token, cluster.connected() as workers:
        order = _Order(uuid.uuid4().hex, job, store, Path(token.name).name)
        steps = Steps(
            ask=(facts_of, modules),
            refuse=partial(_refusal, facts_of(*modules)),
            prepare=partial(_preparation, order),
            work=lambda part: (work, (order.number, part)),
            name=name,
            tell=cluster.tell,
        )
        size = min(_ITEMS, max(1, ceil(len(items) / (_PARTS * max(1, len(workers.live()))))))
        parts = [Part(items[start : start + size]) for start in range(0, len(items), size)]
        try:
            yield from Distribution(workers, steps).run(parts)
        finally:
            if not cluster.is_local:
                _let_forget(workers, order.number)


def _modules_of(job: Job) -> tuple[str, ...]:
    """Return the modules that decide what a job answers: its own, and those of functions that it is given."""
    values = [getattr(job, each.name) for each in fields(job)]
    given = {value.func.__module__ for value in values if isinstance(value, partial)}
    return tuple(sorted({type(job).__module__, *given}))


def _let_forget(workers: Workers, number: str) -> None:
    """Let workers drop what they hold of a list, as far as they answer soon."""
    with suppress(RegraftError, OSError, RuntimeError):  # the scheduler has gone away, and nobody is there to forget
        wait([workers.submit(worker, forget, number) for worker in workers.live()], timeout=_FORGET_SECONDS)


def _refusal(expected: Facts, received: Facts) -> str:
    words = differences(expected, received)
    return words and f"{words}. Give it what this machine has: the image or requirements.lock of the same revision."


def _preparation(order: _Order, worker: str, live: dict[str, int]) -> Call:
    """Return the call that prepares a worker; its machine's memory is shared by all workers there."""
    host = worker.rpartition(":")[0]
    neighbours = sum(other.rpartition(":")[0] == host for other in live)
    return prepare, (order, live.get(worker, 1), neighbours)


# In a worker from here on.


_prepared: dict[str, Work] = {}  # by the number of the list, in the order of their last use
_pushed_out: set[str] = set()  # numbers of lists that have made room for others
_JOBS = 4  # that a worker is ready for at a time: each may hold a graph
_lists = threading.Lock()  # for both
_turn = threading.Lock()  # one part at a time, with all threads of the worker


def prepare(order: _Order, threads: int, neighbours: int) -> None:
    """Make this worker ready for the parts of a list; see `Seat` and `Job.begin`."""
    is_shared = (order.store / order.token).exists() and os.access(order.store, os.W_OK)
    store = order.store if is_shared else None
    ready = order.job.begin(Seat(threads, neighbours, store))
    with _lists:
        while len(_prepared) >= _JOBS:  # of runs that share a scheduler, or were killed
            oldest = next(iter(_prepared))
            del _prepared[oldest]
            _pushed_out.add(oldest)
        _pushed_out.discard(order.number)
        _prepared[order.number] = ready


def forget(number: str) -> None:
    """Drop what this worker holds of a list that is done."""
    with _lists:
        _prepared.pop(number, None)
        _pushed_out.discard(number)


def work(number: str, items: Sequence[Any]) -> Any:
    """Do a part.

    Raises:
        PushedOut: other lists have taken the place of this one.
        Unprepared: this process was not prepared for the list: it has been started again.
    """
    with _turn:
        with _lists:
            if number not in _prepared:
                raise PushedOut if number in _pushed_out else Unprepared
            ready = _prepared[number] = _prepared.pop(number)  # now the last one that was used
        return ready(items)


def own_folder() -> Path:
    """Return a folder of this worker, which Dask removes with it."""
    from distributed import get_worker

    return Path(get_worker().local_directory) / "store"
