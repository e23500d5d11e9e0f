"""Work on a Dask cluster against the same in one process: the same files, at what price, and what faults cost.

    python -m benchmarks.cluster DIR [--quick]

Baseline: this process with as many threads as there are cores. Against it, with as many threads together, one and two
workers of `local:N`, in turns: the scan, extraction, evaluation and scoring of the same photos. Then faults of
extraction: a worker is killed in the middle, a photo ends every worker, a worker has another Pillow, a worker's disk is
full, the scheduler is killed. The last line has `same_bytes` (of manifest, features.arrow, predictions and scores, for
all that went on to its end), `overhead` (seconds of local:1 over those of this process, in percent; that of extraction,
and `overheads` has all) and `lost_after_kill` (rows that are missing or other ones after a worker was killed).
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cluster_faults import FAULTS
from benchmarks.cluster_runs import Bench
from benchmarks.cluster_stages import STAGES, Stages
from regraft.cluster.connection import Cluster
from tests.support.machine import describe_machine

_WAYS = (None, "local:1", "local:2")


def measure(raw: Path, folder: Path, *, photos: int, repeats: int) -> dict[str, Any]:
    """Return the figures of the last line, after telling each as it is known."""
    bench = Bench.of(raw, folder, photos)
    stages = Stages.of(bench)
    runs: dict[str, Callable[[str | None], str]] = {"extraction": lambda way: bench.extract(way).sha256}
    runs |= {name: partial(_on, partial(stage, stages)) for name, stage in STAGES.items()}
    overheads, is_same, lost = {}, True, 0
    for name, run in runs.items():
        overheads[name], same = _compare(name, run, repeats)
        is_same &= same
    for fault in FAULTS:
        result = fault(bench)
        print(f"{result.name}: {result.words}", flush=True)
        is_same &= result.is_same
        lost += result.lost
    return {
        "same_bytes": is_same,
        "overhead": overheads["extraction"],
        "overheads": overheads,
        "lost_after_kill": lost,
    }


def _on(stage: Callable[[Cluster | None], str], way: str | None) -> str:
    return stage(Cluster(way, 0, lambda _: None, lambda _: None) if way else None)


def _compare(name: str, run: Callable[[str | None], str], repeats: int) -> tuple[float, bool]:
    """Return the overhead of one worker in percent, and whether the bytes are the same in all ways and repeats."""
    seconds: dict[str | None, list[float]] = {way: [] for way in _WAYS}
    digests: dict[str | None, set[str]] = {way: set() for way in _WAYS}
    for _ in range(repeats):
        for way in _WAYS:
            begun = time.perf_counter()
            digests[way].add(run(way))
            seconds[way].append(time.perf_counter() - begun)
    median = {way: statistics.median(values) for way, values in seconds.items()}
    for way in _WAYS:
        took = f"{median[way]:8.2f} s {median[way] / median[None]:6.2f}x"
        shown = ", ".join(digest[:16] for digest in sorted(digests[way]))
        print(f"{name:11}{way or 'this process':14}{took}  sha256 {shown}", flush=True)
    return round(100 * (median["local:1"] / median[None] - 1), 1), len(set().union(*digests.values())) == 1


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster", description="Work on a Dask cluster: bytes, overhead, faults."
    )
    parser.add_argument("photos", type=Path, help="a folder of labelled photos")
    parser.add_argument("--quick", action="store_true", help="256 photos instead of 2,048, one repeat instead of three")
    arguments = parser.parse_args()
    photos, repeats = (256, 1) if arguments.quick else (2048, 3)
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="regraft-cluster-") as folder:
        print(json.dumps(measure(arguments.photos, Path(folder), photos=photos, repeats=repeats)))


if __name__ == "__main__":
    main()
