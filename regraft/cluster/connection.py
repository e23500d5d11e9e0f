"""A Dask cluster: processes that are started on this machine, or the workers of a scheduler somewhere.

Dask pickles what scheduler and workers send each other, and whoever reaches the scheduler can run code on all of them.
So what is started here listens on 127.0.0.1 alone. Certificates of a tls:// scheduler come from Dask's configuration.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from regraft.core.addresses import named
from regraft.core.errors import RegraftError

_LOCAL = "local:"
_REACH_SECONDS = 30.0
_SETTINGS = {
    "distributed.comm.timeouts.connect": "30s",
    "distributed.scheduler.allowed-failures": 1,  # deaths of workers that a part may be at, beyond the first one
    "distributed.admin.large-graph-warning-threshold": "1GiB",  # a backbone's graph goes to each worker once
    "distributed.worker.memory.target": False,  # values go into the store, and results are small
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
}


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
    def connected(self) -> Iterator[Any]:
        """Yield a client of `distributed`; local workers end with the block.

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
        # Dask logs a page when a scheduler or a worker ends. Whoever gives them work says what matters, once.
        with ExitStack() as stack:
            stack.enter_context(dask.config.set(_SETTINGS))
            stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
            scheduler = self._started(distributed, stack) if self.is_local else self.address
            try:
                client = distributed.Client(scheduler, timeout=_REACH_SECONDS, asynchronous=False)
            except (OSError, TimeoutError, ValueError, TypeError) as error:
                raise RegraftError(
                    f"The Dask scheduler {self.address} cannot be reached: {named(error)}. Start it (`dask scheduler`),"
                    " correct machine.cluster in params.yaml, or set it to null to compute on this machine. A tls:// "
                    "address needs certificates in Dask's configuration."
                ) from None
            stack.enter_context(client)
            self.show(client.dashboard_link or "")
            yield client

    def _started(self, distributed: Any, stack: ExitStack) -> Any:
        """Start a scheduler in this process and workers as processes, which only this machine can reach."""
        folder = tempfile.TemporaryDirectory(prefix="regraft-cluster-", ignore_cleanup_errors=True)
        workers = int(self.address.removeprefix(_LOCAL))
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=max(1, (self.threads or len(allowed)) // workers),
            processes=True,
            asynchronous=False,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=None,
            local_directory=stack.enter_context(folder),
            silence_logs=logging.CRITICAL,
        )
        stack.callback(cluster.close, timeout=10.0)
        return cluster
