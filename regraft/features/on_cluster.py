"""Extraction on a cluster: each worker computes parts of what is missing and writes its own shards.

This process gives out the parts and counts. A worker is given what it needs once: the backbone's graph, how views are
drawn, and where photos and store are. It needs no TensorFlow and no folder of the project.
"""

import hashlib
import tempfile
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path

import numpy as np

from regraft.backbones.runners import OnnxRunner
from regraft.backbones.trunk import Trunk
from regraft.cluster.connection import Cluster
from regraft.cluster.distribution import Distribution
from regraft.cluster.handshake import differences, facts_of
from regraft.cluster.steps import Call, Part, Steps, Unprepared
from regraft.config import Machine
from regraft.errors import RegraftError, printable
from regraft.features.feature_store import open_feature_store
from regraft.features.forward_passes import ForwardPasses, Work
from regraft.photos.dataset import Dataset
from regraft.photos.memory import FILE_MEMORY, PHOTO_MEMORY
from regraft.photos.spool import Spool
from regraft.photos.views import Views

_PHOTOS = 512  # most in a part: what a lost worker costs
_PARTS = 4  # of each worker at least, so that all of them end at about the same time


@dataclass(frozen=True, slots=True)
class _AbsentRunner:
    """Stands for the runner of a trunk that travels: the worker starts its own."""

    name: str
    is_parallel: bool = True

    def run(self, images: np.ndarray, *, with_activations: bool) -> tuple[np.ndarray, np.ndarray | None]:
        raise RuntimeError("this trunk is for a worker, which has not started its engine yet")


@dataclass(frozen=True, slots=True)
class _Job:
    """What a worker needs to know."""

    number: str  # of this extraction; a worker that has another one, or none, was not prepared
    views: Views
    trunk: Trunk  # without its runner
    machine: Machine
    dataset: Dataset  # without rows
    sample: Work  # which the worker must be able to read
    root: Path  # the store's folder, absolute
    is_local: bool
    token: str  # name of a file that is in the store's folder now
    namespaces: tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Done:
    """What a worker did of a part."""

    views: int
    photos_fetched: int
    bytes_fetched: int


def compute_on_cluster(
    cluster: Cluster,
    passes: ForwardPasses,
    dataset: Dataset,
    works: Sequence[Work],
    on_progress: Callable[[int, int], None],
) -> None:
    """Have workers compute what is missing; afterwards it is in the store, for whoever looks again.

    Raises:
        RegraftError: the engine is none of a cluster, the scheduler cannot be reached or has gone away, no worker is
            like this process, or a photo ends its workers. What was computed is in the store.
    """
    if not isinstance(passes.trunk.runner, OnnxRunner):
        raise RegraftError(
            f"machine.cluster is {cluster.address}, and backbone.engine computes with {passes.trunk.engine}. Workers "
            "of a cluster compute with ONNX Runtime: set backbone.engine to onnxruntime, or machine.cluster to null."
        )
    root = passes.store.features.folder.parent.absolute()
    root.mkdir(parents=True, exist_ok=True)
    total, done = sum(len(work.views) for work in works), 0
    on_progress(0, total)
    with tempfile.NamedTemporaryFile(dir=root, prefix=".cluster-") as token, cluster.connected() as workers:
        job = _job_of(cluster, passes, dataset, works[0], Path(token.name))
        steps = Steps(
            ask=(facts_of, (__name__,)),
            refuse=partial(_refusal, facts_of(__name__)),
            prepare=partial(_preparation, job),
            work=lambda items: (compute, (job.number, items)),
            name=lambda work: f"{printable(work.photo.path)} (SHA-256 {work.photo.digest[:12]})",
            tell=cluster.tell,
        )
        size = min(_PHOTOS, max(1, ceil(len(works) / (_PARTS * max(1, len(workers.live()))))))
        parts = [Part(works[start : start + size]) for start in range(0, len(works), size)]
        for part in Distribution(workers, steps).run(parts):
            done += part.views
            if dataset.elsewhere:
                dataset.elsewhere.fetches.photos += part.photos_fetched
                dataset.elsewhere.fetches.bytes += part.bytes_fetched
            on_progress(done, total)


def _job_of(cluster: Cluster, passes: ForwardPasses, dataset: Dataset, sample: Work, token: Path) -> _Job:
    store, trunk = passes.store, passes.trunk
    return _Job(
        number=uuid.uuid4().hex,
        views=passes.views,
        trunk=replace(trunk, runner=_AbsentRunner(trunk.engine), path=trunk.path.absolute()),
        machine=passes.machine,
        dataset=replace(dataset, rows=dataset.rows.head(0), folder=dataset.folder.absolute()),
        sample=sample,
        root=token.parent,
        is_local=cluster.is_local,
        token=token.name,
        namespaces=(store.features.folder.name, store.activations.folder.name),
    )


def _refusal(expected: dict, received: dict) -> str:
    words = differences(expected, received)
    return words and f"{words}. Give it what this machine has: the image or requirements.lock of the same revision."


def _preparation(job: _Job, worker: str, live: dict[str, int]) -> Call:
    """Return the call that prepares a worker; its machine's memory is shared by all workers there."""
    host = worker.rpartition(":")[0]
    neighbours = sum(other.rpartition(":")[0] == host for other in live)
    graph = None if job.is_local else job.trunk.path.read_bytes()
    return prepare, (job, graph, live.get(worker, 1), neighbours)


# In a worker from here on.


@dataclass(frozen=True, slots=True)
class _Prepared:
    passes: ForwardPasses
    dataset: Dataset


_prepared: dict[str, _Prepared] = {}  # by the number of the job
_JOBS = 2  # that a worker is ready for at a time: each holds a graph
_turn = threading.Lock()  # one part at a time, with all threads of the worker
_MEMORY = {budget: budget.total for budget in (FILE_MEMORY, PHOTO_MEMORY)}


def prepare(job: _Job, graph: bytes | None, threads: int, neighbours: int) -> None:
    """Make a worker ready for the parts of a job.

    Args:
        job: what to do.
        graph: the backbone's; None where the worker finds its file.
        threads: that this worker may use.
        neighbours: workers on this machine, this one among them.

    Raises:
        RegraftError: graph, store or photos are not there, or other ones.
    """
    contents = job.trunk.path.read_bytes() if graph is None else graph
    if hashlib.sha256(contents).hexdigest() != job.trunk.digest:
        raise RegraftError(f"The backbone's graph {job.trunk.path} is not the one that it was. Run again.")
    trunk = replace(job.trunk, runner=OnnxRunner(contents))
    root, shared = job.root, job.machine.shared_store
    if not (root / job.token).exists():
        if not shared:
            raise RegraftError(
                f"It does not see the store {root}. Mount the same folder there, or set machine.shared_store in "
                "params.yaml to an address that every worker reaches."
            )
        root = _own_folder()
    store = open_feature_store(root, trunk, shared=shared)
    if (names := (store.features.folder.name, store.activations.folder.name)) != job.namespaces:
        raise RegraftError(f"It would write into {names}. Expected: {job.namespaces}.")
    dataset = job.dataset
    if elsewhere := dataset.elsewhere:
        spool = Spool(root / "photos", elsewhere.spool.bound)
        dataset = replace(dataset, elsewhere=replace(elsewhere, spool=spool))
    if not dataset.is_there(job.sample.photo):
        raise RegraftError(
            f"It cannot read {printable(job.sample.photo.path)} in {job.dataset.folder}, or finds another photo there. "
            "Mount the same data folder, or give photos by addresses that every worker reaches."
        )
    for budget, whole in _MEMORY.items():
        budget.total = whole // neighbours
    machine = job.machine.model_copy(update={"workers": threads})
    while len(_prepared) >= _JOBS:  # runs that share a scheduler do not take each other's away
        del _prepared[next(iter(_prepared))]
    _prepared[job.number] = _Prepared(ForwardPasses(job.views, trunk, store, machine), dataset)


def compute(number: str, works: Sequence[Work]) -> _Done:
    """Compute and store a part.

    Raises:
        Unprepared: this process was not prepared for the job: it has been started again.
    """
    with _turn:
        prepared = _prepared.get(number)
        if prepared is None:
            raise Unprepared
        before = _fetched(prepared.dataset)
        prepared.passes.compute(prepared.dataset, works, lambda done, total: None)
        photos, size = (now - then for now, then in zip(_fetched(prepared.dataset), before, strict=True))
    return _Done(sum(len(work.views) for work in works), photos, size)


def _fetched(dataset: Dataset) -> tuple[int, int]:
    """Return how many photos this worker has fetched from elsewhere, and their bytes."""
    fetches = dataset.elsewhere and dataset.elsewhere.fetches
    return (fetches.photos, fetches.bytes) if fetches else (0, 0)


def _own_folder() -> Path:
    """Return a folder of this worker, which Dask removes with it."""
    from distributed import get_worker

    return Path(get_worker().local_directory) / "store"
