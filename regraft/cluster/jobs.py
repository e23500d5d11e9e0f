"""A list of items, worked on by a Dask cluster in parts; `distributed` hands them out, and again when a worker dies.

All workers must have the sources, libraries and instructions of this process. The job travels to each worker once; a
worker that joins later, or was started again, prepares itself at its first part.
"""

import os
import platform
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from regraft.cluster.connection import Cluster
from regraft.core.addresses import named
from regraft.core.errors import RegraftError, some
from regraft.core.processor import instruction_set
from regraft.core.provenance import LIBRARIES, provenance_of, take_snapshot

_ITEMS = 512  # most in a part: what a lost worker costs
_PARTS = 4  # of each worker at least, so that all of them end at about the same time
_RETRIES = 2  # of a part that failed
_LOOK_SECONDS = 5.0
_WAIT_SECONDS = 60.0  # for a worker, where there is none
# Import names of the libraries that a worker computes with; those that convert or train decide nothing there.
_COMPUTING = ("PIL", "pi_heif", "numpy", "imagehash", "onnx", "onnxruntime")

Work = Callable[[Sequence[Any]], Any]  # of the items of a part
Versions = dict[str, str]


class NotInSight(RegraftError):
    """A worker lacks files that this process has; who has them can go on alone."""


@dataclass(frozen=True, slots=True)
class Seat:
    """The threads, the memory share and the store of a worker."""

    threads: int  # that it may use
    neighbours: int  # workers on its machine, which share its memory, this one among them
    store: Path | None  # the store's folder, where this worker sees it too and may write to it

    @property
    def folder(self) -> Path:
        """The store's folder, or else one of this worker, which Dask removes with it."""
        return self.store or own_folder()


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
    number: str  # of this list
    job: Job
    store: Path  # absolute
    token: str  # name of a file that is in the store's folder now
    neighbours: dict[str, int]  # workers of a machine, by its host
    modules: tuple[str, ...]
    versions: Versions  # that a worker must have


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
        NotInSight: a worker lacks files that it would need.
        RegraftError: the scheduler cannot be reached or has gone away, no worker is there, one has other versions than
            this process, an item ends its workers, or a part fails again and again. Other answers count nevertheless.
    """
    store = store.absolute()
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=store, prefix=".cluster-") as token, cluster.connected() as client:
        workers, modules = _workers(client, cluster.address), _modules_of(job)
        hosts = [_host(worker) for worker in workers]
        neighbours = {host: hosts.count(host) for host in hosts}
        versions = versions_of(*modules)
        # First with plain strings alone: a worker of another version may not know the classes of a job.
        for worker, received in _asked(client, versions_of, *modules):
            _refuse_others(versions, received, worker)
        order = _Order(uuid.uuid4().hex, job, store, Path(token.name).name, neighbours, modules, versions)
        # By a task, not by `scatter`: the scheduler runs it again if all workers die that have its result.
        sent = client.submit(_Sent, order, pure=False)
        size = min(_ITEMS, max(1, ceil(len(items) / (_PARTS * len(workers)))))
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        try:
            yield from _answers(client, cluster, sent, parts, name)
        finally:
            if not cluster.is_local and client.status == "running":
                list(_asked(client, forget, order.number))


def _answers(
    client: Any, cluster: Cluster, sent: Any, parts: list[Sequence[Any]], name: Callable[[Any], str]
) -> Generator[Any, None, None]:
    """Yield the answers for parts. One that workers die of is halved until a single item is left to name."""
    from distributed import CancelledError, KilledWorker, wait

    def submit(part: Sequence[Any]) -> Any:
        return client.submit(work, sent, part, pure=False, retries=_RETRIES)

    left, deadly = {submit(part): part for part in parts}, []
    while left:
        try:
            done, _ = cast("Any", wait(list(left), timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED"))
        except (TimeoutError, CancelledError):
            _workers(client, cluster.address)
            continue
        for future in done:
            part = left.pop(future)
            if future.status == "finished":
                yield future.result()
                continue
            error = future.exception()
            if not isinstance(error, KilledWorker):
                raise error if isinstance(error, RegraftError) else RegraftError(f"A worker has failed: {named(error)}")
            cluster.tell(f"{len(part)} items were at workers that died, and are tried again.")
            if len(part) == 1:
                deadly += [name(item) for item in part]
            halves = (part[: len(part) // 2], part[len(part) // 2 :]) if len(part) > 1 else ()
            left |= {submit(half): half for half in halves}
    if deadly:
        raise RegraftError(
            f"Every worker ends that is given {some(deadly)}. Look at it and at the logs of the workers; remove it, "
            "and run again. What was computed of others is in the store."
        )


def _workers(client: Any, shown: str) -> list[str]:
    """Return the addresses of the workers that live now, after waiting for one."""
    until, reason = time.monotonic() + _WAIT_SECONDS, "the connection is lost"
    while client.status == "running":
        try:
            if live := client.sync(client.scheduler.ncores, callback_timeout=_WAIT_SECONDS):
                return list(live)
        except (OSError, TimeoutError, RuntimeError) as error:
            reason = named(error)
            break
        if time.monotonic() > until:
            raise RegraftError(
                f"The cluster {shown} has had no worker for {_WAIT_SECONDS:.0f} seconds. What was computed is in the "
                "store: run again when there is one, or set machine.cluster in params.yaml to null."
            )
        time.sleep(0.2)
    raise RegraftError(
        f"The Dask scheduler {shown} has gone away or does not answer: {reason}. What its workers have computed is in "
        "the store. Start it again, and run the same command again to go on."
    )


def _asked(client: Any, function: Callable[..., Any], *arguments: Any) -> Generator[tuple[str, Any], None, None]:
    """Yield what each worker answers, by its address; RegraftError if one fails. One that dies meanwhile is left out.

    Source: `distributed.Client.run`.
    """
    for worker, answer in client.run(_guarded, function, *arguments, on_error="return").items():
        if isinstance(answer, OSError):
            continue
        if isinstance(answer, RegraftError):
            raise type(answer)(f"Worker {worker} cannot be given anything. {answer}")
        if isinstance(answer, Exception):
            raise RegraftError(
                f"Worker {worker} cannot be given anything: {named(answer)}. Give it the image or requirements.lock of "
                "this revision."
            )
        yield worker, answer


def versions_of(*modules: str) -> Versions:
    """Return the sources, libraries and instructions of the processor that decide what modules compute here."""
    snapshot = take_snapshot()
    libraries = sorted({library for name in _COMPUTING for library in LIBRARIES[name]})
    return {
        **{f"source {name}": digest for name, digest in provenance_of(*modules, snapshot=snapshot).code.items()},
        **{name: str(snapshot.versions[name]) for name in libraries},
        "processor": f"{platform.machine()} {instruction_set(integers=True)}",
    }


def _refuse_others(expected: Versions, received: Versions, worker: str) -> None:
    """Raise RegraftError if a worker differs in what decides the values that it computes."""
    names = [name for name in sorted({*expected, *received}) if expected.get(name) != received.get(name)]
    if names:
        words = some([f"{name}: expected {expected.get(name)}, received {received.get(name)}" for name in names])
        raise RegraftError(
            f"Worker {worker} is another one than this machine. {words}. Give it what this machine has: the image or "
            "requirements.lock of the same revision."
        )


def _modules_of(job: Job) -> tuple[str, ...]:
    """Return the modules that decide what a job answers: its own, and those of functions that it is given."""
    values = [getattr(job, each.name) for each in fields(job)]
    given = {value.func.__module__ for value in values if isinstance(value, partial)}
    return tuple(sorted({type(job).__module__, *given}))


def _host(worker: str) -> str:
    return worker.rpartition(":")[0]


# In a worker from here on.


@dataclass(frozen=True, slots=True)
class _Sent:
    """An order as the result of a task, which workers get from each other."""

    order: _Order


_prepared: dict[str, Work] = {}  # by the number of the list
_JOBS = 4  # that a worker is ready for at a time: each may hold a graph
_turn = threading.Lock()  # one part at a time, with all threads of the worker


def prepare(order: _Order) -> None:
    """Make this worker ready for the parts of a list; see `Job.begin`."""
    from distributed import get_worker

    worker = get_worker()
    _refuse_others(order.versions, versions_of(*order.modules), worker.address)
    is_shared = (order.store / order.token).exists() and os.access(order.store, os.W_OK)
    neighbours = order.neighbours.get(_host(worker.address), 1)
    ready = order.job.begin(Seat(worker.state.nthreads, neighbours, order.store if is_shared else None))
    while len(_prepared) >= _JOBS:  # of runs that share a scheduler, or were killed
        del _prepared[next(iter(_prepared))]
    _prepared[order.number] = ready


def work(sent: _Sent, items: Sequence[Any]) -> Any:
    """Do a part."""
    with _turn:
        if sent.order.number not in _prepared:
            _guarded(prepare, sent.order)
        return _guarded(_prepared[sent.order.number], items)


def forget(number: str) -> None:
    """Drop what this worker holds of a list that is done."""
    _prepared.pop(number, None)


def _guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; an error that is not ours becomes one that can be pickled, and holds no secret."""
    try:
        return function(*arguments)
    except RegraftError:
        raise
    except Exception as error:  # the worker's log has its traceback
        traceback.print_exc()
        raise RegraftError(f"{named(error)}.") from None


def own_folder() -> Path:
    """Return a folder of this worker, which Dask removes with it."""
    from distributed import get_worker

    return Path(get_worker().local_directory) / "store"
