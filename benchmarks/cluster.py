"""Extraction on a Dask cluster against extraction in one process: the same file, at what price, and what faults cost.

    python -m benchmarks.cluster DIR [--quick]

Baseline: this process with as many threads as there are cores. Against it, with as many threads together, one and two
workers of `local:N`, in turns. Then faults: a worker is killed in the middle, a photo ends every worker, a worker has
another Pillow, a worker's disk is full, the scheduler is killed. The last line has `same_bytes` (of features.arrow,
after all that went on to its end), `overhead` (seconds of local:1 over those of this process, in percent) and
`lost_after_kill` (rows that are missing or other ones after a worker was killed).
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cluster_faults import FAULTS
from benchmarks.cluster_runs import Bench
from tests.support.machine import describe_machine

_WAYS = (None, "local:1", "local:2")


def measure(raw: Path, folder: Path, *, photos: int, repeats: int) -> dict[str, Any]:
    """Return the figures of the last line, after telling each as it is known."""
    bench = Bench.of(raw, folder, photos)
    seconds: dict[str | None, list[float]] = {way: [] for way in _WAYS}
    digests = {}
    for _ in range(repeats):
        for way in _WAYS:
            begun = time.perf_counter()
            run = bench.extract(way)
            seconds[way].append(time.perf_counter() - begun)
            digests[way] = run.sha256
    median = {way: statistics.median(values) for way, values in seconds.items()}
    for way in _WAYS:
        ratio = median[way] / median[None]
        print(f"{way or 'this process':14}{median[way]:8.2f} s {ratio:6.2f}x  sha256 {digests[way][:16]}", flush=True)
    is_same = len(set(digests.values())) == 1
    lost = 0
    for fault in FAULTS:
        result = fault(bench)
        print(f"{result.name}: {result.words}", flush=True)
        is_same &= result.is_same
        lost += result.lost
    overhead = round(100 * (median["local:1"] / median[None] - 1), 1)
    return {"same_bytes": is_same, "overhead": overhead, "lost_after_kill": lost}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster", description="Extraction on a Dask cluster: bytes, overhead, faults."
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
