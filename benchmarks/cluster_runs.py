"""Runs of extraction for `benchmarks.cluster`: here, on local workers, and on a cluster of separate processes."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from regraft.backbones.catalogue import choose_backbone
from regraft.backbones.trunk import Trunk, load_trunk
from regraft.cluster.connection import Cluster
from regraft.config import Machine
from regraft.features.extraction import Extractor, Receipt
from regraft.features.feature_store import open_feature_store
from regraft.features.table import write_features
from regraft.files import sha256_of
from regraft.params_file import load_params
from regraft.photos.dataset import Dataset
from regraft.photos.views import Views, choose_views
from tests.support.photos import read_folder

ROOT = Path(__file__).parents[1]
_START_SECONDS = 60.0
_QUIET = ["--host", "127.0.0.1", "--no-dashboard"]


@dataclass(frozen=True, slots=True)
class Run:
    """What a run wrote."""

    receipt: Receipt
    features: np.ndarray  # float32, (photos, feature_dim)
    sha256: str  # of features.arrow
    said: list[str]  # what became of workers


@dataclass(frozen=True, slots=True)
class Bench:
    """Photos and backbone of all runs; each has a store of its own unless it is given one."""

    dataset: Dataset
    views: Views
    trunk: Trunk
    machine: Machine
    folder: Path
    reference: list[Run] = field(default_factory=list)  # of this process, once it has run

    @classmethod
    def of(cls, raw: Path, folder: Path, photos: int) -> "Bench":
        """Take the first photos of a folder."""
        params = load_params(ROOT / "params.yaml")
        backbone = choose_backbone(params.backbone)
        views = choose_views(params.preprocess, image_size=backbone.image_size, count=0)
        return cls(
            read_folder(raw).head(photos), views, load_trunk(backbone, folder / "graphs"), params.machine, folder
        )

    def extract(
        self,
        address: str | None,
        *,
        store: str = "",
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Run:
        """Compute what a store lacks, and write features.arrow.

        Args:
            address: of a cluster; None: this process.
            store: name of a store that may hold something already; empty: a new one.
            on_progress: as for `Extractor.fill_store`.
        """
        folder = self.folder / (store or uuid.uuid4().hex)
        said: list[str] = []
        cluster = Cluster(address, 0, said.append, said.append) if address else None
        feature_store = open_feature_store(folder, self.trunk)
        extractor = Extractor(self.views, self.trunk, feature_store, self.machine, cluster)
        receipt = extractor.fill_store(self.dataset, activations="none", on_progress=on_progress)
        path = folder.with_suffix(".arrow")
        write_features(path, extractor, self.dataset)
        run = Run(receipt, extractor.read_features(self.dataset.sources(), 0), sha256_of(path), said)
        if address is None and not self.reference:
            self.reference.append(run)
        return run

    def lost(self, run: Run) -> int:
        """Return how many rows are other ones than those of this process."""
        return int((run.features != self.reference[0].features).any(axis=1).sum())


@dataclass(frozen=True, slots=True)
class External:
    """A scheduler and workers that were started by hand, as on other machines."""

    address: str
    scheduler: subprocess.Popen


@contextmanager
def external(folder: Path, environments: Sequence[dict[str, str]]) -> Iterator[External]:
    """Start a scheduler, and one worker per set of environment variables, all on this machine."""
    file = folder / f"{uuid.uuid4().hex}.json"
    place = ["--scheduler-file", str(file)]
    with ExitStack() as processes:

        def start(command: list[str], variables: dict[str, str]) -> subprocess.Popen:
            paths = os.pathsep.join(filter(None, [variables.get("PYTHONPATH"), str(ROOT)]))
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **variables, "PYTHONPATH": paths},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            processes.callback(_end, process)
            return process

        scheduler = start([sys.executable, "-m", "distributed.cli.dask_scheduler", *_QUIET, "--port", "0", *place], {})
        for variables in environments:
            worker = ["--nthreads", "1", "--memory-limit", "0", "--local-directory", str(folder / uuid.uuid4().hex)]
            start([sys.executable, "-m", "distributed.cli.dask_worker", *_QUIET, *place, *worker], variables)
        yield External(_address_in(file), scheduler)


def _address_in(file: Path) -> str:
    """Return the address that a scheduler writes into its file."""
    give_up = time.monotonic() + _START_SECONDS
    while time.monotonic() < give_up:
        if file.exists() and (contents := file.read_text()).strip():
            return json.loads(contents)["address"]
        time.sleep(0.1)
    sys.exit("the Dask scheduler has not started within a minute")


def _end(process: subprocess.Popen) -> None:
    """End a process and those that it started, a worker's nanny among them."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
