"""How fast a shipped file answers, in each engine that is installed: from raw pixels to probabilities.

Every engine runs in processes of its own, so that memory and start are its own. Engines take turns, so that a machine
that is busy for a while is busy for all of them.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
from PIL import Image

from regraft.core.processor import this_processor
from regraft.photos.images import Threads

BATCH = 32
_ROUNDS = 3  # processes of each engine and number of threads
_WARM_UP = 10  # answers before the first that is timed
_BATCHES = 4  # that are timed in each process
_QUANTILES = (0.5, 0.95, 0.99)
_SECONDS = 600  # after which a process is given up


@dataclass(frozen=True, slots=True)
class Contestant:
    """A file in an engine."""

    name: str  # in the report
    engine: str  # as `latency_child` calls it
    file: Path
    more: dict[str, Any] = field(default_factory=dict)  # what the engine needs to know besides
    problem: str = ""  # why it cannot be measured


@dataclass(frozen=True, slots=True)
class Photos:
    """What all contestants are asked about."""

    timed: np.ndarray  # uint8 RGB, shape (height, width, 3)
    compared: list[np.ndarray]  # of any size: what one engine says of them is compared with what the first one says


@dataclass(slots=True)
class _Taken:
    """What the processes of one contestant said, with one thread or all."""

    cold_start: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    batch_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    probabilities: np.ndarray | None = None  # of the photos to compare
    version: str = ""
    problem: str = ""  # why there is nothing of all this

    def add(self, said: dict[str, Any]) -> None:
        """Add what one process said."""
        self.seconds += said["seconds"]
        self.batch_seconds += said["batch_seconds"]
        self.peak_bytes = max(self.peak_bytes, said["peak_bytes"])
        self.version = said["version"]
        if said["probabilities"]:
            self.probabilities = np.array(said["probabilities"], np.float32)


def contestants_of(onnx: Path, int8: Path | None, keras: Contestant | None) -> list[Contestant]:
    """Return the files and engines in the order of the report; the first one is what the others are compared with."""
    files = {"model.onnx": onnx} | ({"model.int8.onnx": int8} if int8 else {})
    found = [Contestant(name, "onnxruntime", file) for name, file in files.items()]
    if find_spec("openvino"):
        found += [Contestant(f"{name} in OpenVINO", "openvino", file) for name, file in files.items()]
    return [*found, *([keras] if keras else [])]


def measure(contestants: list[Contestant], photos: Photos, *, repeats: int, threads: Threads) -> dict[str, Any]:
    """Return reports/latency.json but for what it is about.

    Args:
        contestants: from `contestants_of`.
        photos: to ask about.
        repeats: answers to one photo that are timed, of each contestant and number of threads, at least.
        threads: told how many processes are done and to do.
    """
    processor = this_processor()
    counts = sorted({1, processor.cores})
    turns = [(each, count, turn) for turn in range(_ROUNDS) for count in counts for each in contestants]
    taken = {(each.name, count): _Taken(problem=each.problem) for each in contestants for count in counts}
    with tempfile.TemporaryDirectory(prefix="regraft-measure-") as folder:
        file = Path(folder, "photos.npz")
        arrays: dict[str, Any] = {f"compared{number}": photo for number, photo in enumerate(photos.compared)}
        np.savez(file, timed=photos.timed, **arrays)
        for done, (each, count, turn) in enumerate(turns, 1):
            if not any(taken[each.name, other].problem for other in counts):
                job = _job(file, count, repeats, is_last=count == counts[-1], is_first_turn=turn == 0)
                _run(each, job, taken[each.name, count])
            threads.on_progress(done, len(turns))
    first = taken[contestants[0].name, counts[-1]].probabilities
    return {
        "processor": str(processor),
        "cores": processor.cores,
        "photo": list(photos.timed.shape[1::-1]),
        "repeats": _ROUNDS * ceil(repeats / _ROUNDS),
        "batch": BATCH,
        "batch_repeats": _ROUNDS * _BATCHES,
        "processes": _ROUNDS,
        "warm_up": _WARM_UP,
        "compared": len(photos.compared),
        "rows": [_row(each, taken[each.name, counts[0]], taken[each.name, counts[-1]], first) for each in contestants],
    }


def at_size(photo: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a photo at the size at which answers are timed."""
    return np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR))


def _job(photos: Path, threads: int, repeats: int, *, is_last: bool, is_first_turn: bool) -> dict[str, Any]:
    """Return what one process does: batches only on all cores, and what it says of other photos only once."""
    return {
        "photos": str(photos),
        "threads": threads,
        "warm_up": _WARM_UP,
        "repeats": ceil(repeats / _ROUNDS),
        "batch": BATCH if is_last else 0,
        "batch_repeats": _BATCHES,
        "compare": is_last and is_first_turn,
    }


def _run(contestant: Contestant, job: dict[str, Any], taken: _Taken) -> None:
    """Run one process, and add what it took or why it failed."""
    job = {**job, **contestant.more, "engine": contestant.engine, "file": str(contestant.file)}
    command = [sys.executable, "-m", "regraft.export.latency_child", json.dumps(job)]
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as child:
            assert child.stdout is not None
            watchdog = Timer(_SECONDS, child.kill)
            watchdog.start()
            child.stdout.readline()
            taken.cold_start.append(time.perf_counter() - start)
            said = child.stdout.read()
            watchdog.cancel()
        if child.returncode == 0:
            taken.add(json.loads(said))
            return
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
        taken.problem = lines[-1][:300] if lines else f"its process ended with status {child.returncode}"


def _row(contestant: Contestant, one: _Taken, every: _Taken, first: np.ndarray | None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": contestant.name, "engine": contestant.engine}
    if problem := one.problem or every.problem:
        return row | {"problem": problem}
    assert every.probabilities is not None
    assert first is not None
    return row | {
        "bytes": contestant.file.stat().st_size,
        "version": one.version,
        "cold_start_seconds": statistics.median(one.cold_start),
        "one_thread": _milliseconds(one.seconds),
        "all_cores": _milliseconds(every.seconds),
        "images_per_second": BATCH / statistics.median(every.batch_seconds),
        "peak_bytes": one.peak_bytes,
        "peak_bytes_of_batches": every.peak_bytes,
        "largest_difference": float(np.abs(every.probabilities - first).max()),
        "same_class": float(np.mean(every.probabilities.argmax(axis=1) == first.argmax(axis=1))),
    }


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    """Return how long an answer took: half of them no longer than p50, and so on."""
    found = 1000 * np.quantile(seconds, _QUANTILES)
    return {f"p{100 * quantile:.0f}": float(value) for quantile, value in zip(_QUANTILES, found, strict=True)}
