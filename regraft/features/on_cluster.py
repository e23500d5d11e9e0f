"""Extraction on a cluster: each worker computes parts of what is missing and writes its own shards.

A worker is given what it needs once: the backbone's graph, how views are drawn, and where photos and store are. It
needs no TensorFlow and no folder of the project.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from regraft.backbones.trunk import OnnxRunner, Trunk
from regraft.cluster.connection import Cluster
from regraft.cluster.jobs import Seat, Work, work_on
from regraft.core.config import Machine
from regraft.core.errors import RegraftError, printable
from regraft.features.forward_passes import ForwardPasses, open_feature_store
from regraft.features.forward_passes import Work as Passes
from regraft.photos.dataset import Dataset
from regraft.photos.in_sight import Fetched, InSight
from regraft.photos.views import Views


@dataclass(frozen=True, slots=True)
class _AbsentRunner:
    """Stands for the runner of a trunk that travels: the worker starts its own."""

    name: str
    is_parallel: bool = True

    def run(self, images: np.ndarray, *, with_activations: bool) -> tuple[np.ndarray, np.ndarray | None]:
        raise RuntimeError("this trunk is for a worker, which has not started its engine yet")


@dataclass(frozen=True, slots=True)
class _Done:
    """What a worker did of a part."""

    views: int
    fetched: Fetched


@dataclass(frozen=True, slots=True)
class Extraction:
    """What a worker needs to know."""

    views: Views
    trunk: Trunk  # without its runner
    machine: Machine
    photos: InSight
    root: Path  # the store's folder, absolute
    namespaces: tuple[str, str]
    graph: bytes | None  # the backbone's; None where the worker finds its file

    @classmethod
    def of(cls, passes: ForwardPasses, dataset: Dataset, works: Sequence[Passes], *, is_local: bool) -> "Extraction":
        """Describe an extraction to workers, which are processes of this machine or others."""
        store, trunk = passes.store, passes.trunk
        return cls(
            views=passes.views,
            trunk=replace(trunk, runner=_AbsentRunner(trunk.engine), path=trunk.path.absolute()),
            machine=passes.machine,
            photos=InSight.of(dataset, (work.photo for work in works)),
            root=store.features.folder.parent.absolute(),
            namespaces=(store.features.folder.name, store.activations.folder.name),
            graph=None if is_local else trunk.path.read_bytes(),
        )

    def begin(self, seat: Seat) -> Work:
        """Start the engine and open the store.

        Raises:
            RegraftError: graph, store or photos are not there, or other ones.
        """
        contents = self.trunk.path.read_bytes() if self.graph is None else self.graph
        if hashlib.sha256(contents).hexdigest() != self.trunk.digest:
            raise RegraftError(f"The backbone's graph {self.trunk.path} is not the one that it was. Run again.")
        trunk, shared = replace(self.trunk, runner=OnnxRunner(contents)), self.machine.shared_store
        if not seat.store and not shared:
            raise RegraftError(
                f"It does not see the store {self.root}, or may not write to it. Mount the same folder there, or set "
                "machine.shared_store in params.yaml to an address that every worker reaches."
            )
        store = open_feature_store(seat.folder, trunk, shared=shared)
        if (names := (store.features.folder.name, store.activations.folder.name)) != self.namespaces:
            raise RegraftError(f"It would write into {names}. Expected: {self.namespaces}.")
        machine = self.machine.model_copy(update={"workers": seat.threads})
        return partial(_compute, ForwardPasses(self.views, trunk, store, machine), self.photos.seen_from(seat))


def compute_on_cluster(
    cluster: Cluster,
    passes: ForwardPasses,
    dataset: Dataset,
    works: Sequence[Passes],
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
    total, done = sum(len(work.views) for work in works), 0
    on_progress(0, total)
    job = Extraction.of(passes, dataset, works, is_local=cluster.is_local)
    for part in work_on(cluster, job, works, store=job.root, name=_name):
        done += part.views
        part.fetched.count(dataset.elsewhere)
        on_progress(done, total)


def _name(work: Passes) -> str:
    return f"{printable(work.photo.path)} (SHA-256 {work.photo.digest[:12]})"


def _compute(passes: ForwardPasses, dataset: Dataset, works: Sequence[Passes]) -> _Done:
    """Compute and store a part, in a worker."""
    before = Fetched.by(dataset.elsewhere)
    passes.compute(dataset, works, lambda done, total: None)
    return _Done(sum(len(work.views) for work in works), Fetched.by(dataset.elsewhere) - before)
