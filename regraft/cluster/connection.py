"""A Dask cluster: processes that are started on this machine, or a scheduler somewhere with workers of its own.

What travels between scheduler and workers is pickled by Dask, and whoever reaches the scheduler can run code on all of
them. So what is started here listens on 127.0.0.1 alone. Certificates of a tls:// scheduler come from Dask's own
configuration.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from regraft.cluster.steps import attempt
from regraft.core.addresses import named
from regraft.core.errors import RegraftError

_LOCAL = "local:"
_REACH_SECONDS = 30.0
_CLOSE_SECONDS = 10.0
_SETTINGS = {
    "distributed.comm.timeouts.connect": "30s",
    "distributed.deploy.lost-worker-timeout": "10 minutes",  # until a local worker is given up that is being restarted
    "distributed.admin.large-graph-warning-threshold": "1GiB",  # a backbone's graph goes to each worker once
    "distributed.worker.memory.target": False,  # values go into the store, and results are a number a part
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
}


class Workers(Protocol):
    """Workers that can be given something to do."""

    def live(self) -> dict[str, int]:
        """Return the threads of each worker that lives now, by its address; RegraftError if nobody can tell."""
        ...

    def submit(self, worker: str, function: Callable[..., Any], *arguments: Any) -> Future:
        """Have a worker, and no other one, call a function that it finds by its name; see `attempt`."""
        ...


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where work may go; nothing is started or reached before `connected`."""

    address: str  # local:N, tcp://host:port or tls://host:port
    threads: int  # of all local workers together; 0 means one per core
    show: Callable[[str], None]  # is told the address of the dashboard, once connected
    tell: Callable[[str], None]  # is told what becomes of workers

    @property
    def is_local(self) -> bool:
        """Whether the workers are processes of this machine that end with this one."""
        return self.address.startswith(_LOCAL)

    @contextmanager
    def connected(self) -> Iterator[Workers]:
        """Start local workers, or reach a scheduler; all of it is closed at the end, whatever happens.

        Raises:
            RegraftError: Dask is not installed, or the scheduler cannot be reached.
        """
        try:
            import dask.config
            import distributed
            from distributed.utils import silence_logging_cmgr
        except ImportError as error:
            raise RegraftError(
                f"machine.cluster is {self.address}, which needs Dask: {named(error)}. Install it with "
                "pip install '.[cluster]', or set machine.cluster in params.yaml to null."
            ) from None
        # Of a scheduler or a worker that ends Dask logs a page. What matters is said once, by whoever gives them work.
        with dask.config.set(_SETTINGS), silence_logging_cmgr(logging.CRITICAL):
            if not self.is_local:
                with _client_of(distributed, self.address) as client:
                    self.show(client.dashboard_link or "")
                    yield DaskWorkers(client, self.address)
                return
            with (
                tempfile.TemporaryDirectory(prefix="regraft-cluster-", ignore_cleanup_errors=True) as folder,
                _started(distributed, self._local_workers(), self._local_threads(), folder) as cluster,
                distributed.Client(cluster, timeout=_REACH_SECONDS, asynchronous=False) as client,
            ):
                self.show(client.dashboard_link or "")
                yield DaskWorkers(client, self.address)

    def _local_workers(self) -> int:
        return int(self.address.removeprefix(_LOCAL))

    def _local_threads(self) -> int:
        """Threads of each local worker: together they take no more cores than one process would."""
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        return max(1, (self.threads or len(allowed)) // self._local_workers())


class DaskWorkers:
    """The workers of a Dask scheduler, through its interface of `concurrent.futures`."""

    def __init__(self, client: Any, shown: str) -> None:
        self._client, self._shown = client, shown
        self._executor = client.get_executor(pure=False, allow_other_workers=False, retries=0)

    def live(self) -> dict[str, int]:
        reason = "the connection is lost"
        if self._client.status == "running":
            try:
                return self._client.sync(self._client.scheduler.ncores, callback_timeout=_REACH_SECONDS)
            except (OSError, TimeoutError, RuntimeError) as error:
                reason = named(error)
        raise RegraftError(
            f"The Dask scheduler {self._shown} has gone away or does not answer: {reason}. What its workers have "
            "computed is in the store. Start it again, and run the same command again to go on."
        )

    def submit(self, worker: str, function: Callable[..., Any], *arguments: Any) -> Future:
        try:
            return self._executor.submit(attempt, function, *arguments, workers=[worker])
        except (OSError, RuntimeError):
            self.live()  # which says that the scheduler has gone away
            raise


@contextmanager
def _client_of(distributed: Any, address: str) -> Iterator[Any]:
    try:
        client = distributed.Client(address, timeout=_REACH_SECONDS, asynchronous=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise RegraftError(
            f"The Dask scheduler {address} cannot be reached: {named(error)}. Start it (`dask scheduler`), correct "
            "machine.cluster in params.yaml, or set it to null to compute on this machine. A tls:// address needs "
            "certificates in Dask's configuration."
        ) from None
    with client:
        yield client


@contextmanager
def _started(distributed: Any, workers: int, threads: int, folder: str) -> Iterator[Any]:
    """Start a scheduler in this process and workers as processes, which only this machine can reach."""
    cluster = distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        processes=True,
        asynchronous=False,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=None,
        local_directory=folder,
        silence_logs=logging.CRITICAL,
    )
    try:
        yield cluster
    finally:  # also of a run that is stopped
        cluster.close(timeout=_CLOSE_SECONDS)
