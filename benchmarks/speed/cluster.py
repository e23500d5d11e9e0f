"""Extraction on a Dask cluster against the same in one process: bytes, overhead, and rows that a killed worker loses.

    python -m benchmarks.speed.cluster DIR [--quick]

Baseline: this process with as many threads as there are cores. Against it, with as many threads together, one and two
workers of `local:N`, in turns. Then one of two workers is killed in the middle. The last line has `same_bytes` of
features.arrow, `overhead` (seconds of local:1 over those of this process, in percent) and `lost_after_kill`, rows that
are missing or differ.
"""

import argparse
import json
import signal
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.support.photos import read_folder
from benchmarks.support.projects import ROOT, describe_machine
from regraft.backbones.catalogue import choose_backbone
from regraft.backbones.trunk import Trunk, load_trunk
from regraft.cluster.connection import Cluster
from regraft.core.files import sha256_of
from regraft.core.params_file import load_params
from regraft.features.extraction import Extractor
from regraft.features.forward_passes import open_feature_store
from regraft.features.table import write_features
from regraft.photos.dataset import Dataset
from regraft.photos.views import Views, choose_views

_WAYS = (None, "local:1", "local:2")


@dataclass(frozen=True, slots=True)
class Bench:
    """Photos and backbone of all runs; each run has a new store."""

    dataset: Dataset
    views: Views
    trunk: Trunk
    machine: Any
    folder: Path

    def extract(
        self, address: str | None, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> tuple[str, np.ndarray]:
        """Return the digest of features.arrow and its rows, float32, (photos, feature_dim)."""
        folder = self.folder / uuid.uuid4().hex
        cluster = Cluster(address, 0, print, print) if address else None
        extractor = Extractor(self.views, self.trunk, open_feature_store(folder, self.trunk), self.machine, cluster)
        extractor.fill_store(self.dataset, activations="none", on_progress=on_progress)
        path = folder.with_suffix(".arrow")
        write_features(path, extractor, self.dataset)
        return sha256_of(path), extractor.read_features(self.dataset.sources(), 0)


def measure(raw: Path, folder: Path, *, photos: int, repeats: int) -> dict[str, Any]:
    """Return the figures of the last line."""
    params = load_params(ROOT / "params.yaml")
    backbone = choose_backbone(params.backbone)
    views = choose_views(params.preprocess, image_size=backbone.image_size, count=0)
    trunk = load_trunk(backbone, folder / "graphs")
    bench = Bench(read_folder(raw).head(photos), views, trunk, params.machine, folder)
    seconds: dict[str | None, list[float]] = {way: [] for way in _WAYS}
    digests, rows = set(), np.empty(0)
    for _ in range(repeats):
        for way in _WAYS:
            begun = time.perf_counter()
            digest, found = bench.extract(way)
            seconds[way].append(time.perf_counter() - begun)
            digests.add(digest)
            rows = found if way is None else rows
    median = {way: statistics.median(values) for way, values in seconds.items()}
    for way in _WAYS:
        print(f"{way or 'this process':14}{median[way]:8.2f} s {median[way] / median[None]:6.2f}x", flush=True)
    digest, after_kill = bench.extract("local:2", _killer())
    return {
        "same_bytes": len(digests | {digest}) == 1,
        "overhead": round(100 * (median["local:1"] / median[None] - 1), 1),
        "lost_after_kill": int((after_kill != rows).any(axis=1).sum()),
    }


def _killer() -> Callable[[int, int], None]:
    """Return a callback that kills one worker as soon as something is done."""
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done and not killed:
            victim = next(p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline()))
            victim.send_signal(signal.SIGKILL)
            killed.append(victim.pid)

    return kill


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Extraction on a Dask cluster: bytes, overhead, a killed worker.")
    parser.add_argument("photos", type=Path, help="a folder of labelled photos")
    parser.add_argument("--quick", action="store_true", help="256 photos instead of 2,048, one repeat instead of three")
    arguments = parser.parse_args()
    photos, repeats = (256, 1) if arguments.quick else (2048, 3)
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="regraft-cluster-") as folder:
        print(json.dumps(measure(arguments.photos, Path(folder), photos=photos, repeats=repeats)))


if __name__ == "__main__":
    main()
