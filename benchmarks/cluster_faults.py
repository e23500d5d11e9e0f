"""Faults of a cluster in the middle of an extraction: is anything lost, and is a person told what to do?

A photo that ends its worker and a full disk are made by a module that Dask loads into the workers before all else; the
sources on the disk stay as they are, so nobody is refused for them.
"""

import importlib.metadata
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.cluster_runs import Bench, Run, external
from regraft.errors import RegraftError

_DEADLY = """\
import os, signal
from regraft.features.forward_passes import ForwardPasses
def deadly(self, dataset, works, on_progress, compute=ForwardPasses.compute):
    for work in works:
        if work.photo.digest == {digest!r}:
            os.kill(os.getpid(), signal.SIGKILL)
    compute(self, dataset, works, on_progress)
if ForwardPasses.compute.__name__ != "deadly":  # Dask may load this twice
    ForwardPasses.compute = deadly
"""
_FULL = """\
import errno
from regraft.store import shards
def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")
shards.put_in_place = full
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run with a fault."""

    name: str
    words: str  # for people
    is_same: bool  # whether features.arrow, once it was written, is that of an undisturbed run
    lost: int = 0  # rows that are missing or other ones


def worker_killed(bench: Bench) -> Outcome:
    """SIGKILL to one of two workers as soon as something is done."""
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done and not killed:
            victim = next(p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline()))
            victim.send_signal(signal.SIGKILL)
            killed.append(victim.pid)

    run = bench.extract("local:2", on_progress=kill)
    return _compared(bench, "worker killed", run, said=_lines(run))


def deadly_photo(bench: Bench) -> Outcome:
    """One photo ends every worker; the same store without that fault afterwards."""
    import dask.config

    photo = bench.dataset.photos()[len(bench.dataset) // 2]
    preload = _preload(bench.folder, _DEADLY.format(digest=photo.digest))
    with dask.config.set({"distributed.worker.preload": [str(preload)]}):
        words = _refused(lambda: bench.extract("local:2", store="deadly"))
    named = "named" if photo.path in words else "NOT NAMED"
    run = bench.extract(None, store="deadly")
    return _compared(bench, "deadly photo", run, said=f"{named}: {words}")


def other_pillow(bench: Bench) -> Outcome:
    """A worker has another Pillow."""
    return _one_of_two(bench, "other Pillow", {"PYTHONPATH": str(_installed(bench.folder, "pillow", "11.0.0"))})


def full_disk(bench: Bench) -> Outcome:
    """A worker cannot write."""
    return _one_of_two(bench, "full disk", {"DASK_DISTRIBUTED__WORKER__PRELOAD": str(_preload(bench.folder, _FULL))})


def scheduler_killed(bench: Bench) -> Outcome:
    """SIGKILL to the scheduler as soon as something is done; the next run goes on without a cluster."""
    with external(bench.folder, [{}, {}]) as cluster:

        def kill(done: int, total: int) -> None:
            if done:
                cluster.scheduler.send_signal(signal.SIGKILL)

        words = _refused(lambda: bench.extract(cluster.address, store="orphaned", on_progress=kill))
    run = bench.extract(None, store="orphaned")
    return _compared(bench, "scheduler killed", run, said=words)


FAULTS: list[Callable[[Bench], Outcome]] = [worker_killed, deadly_photo, other_pillow, full_disk, scheduler_killed]


def _one_of_two(bench: Bench, name: str, faulty: dict[str, str]) -> Outcome:
    """One of two workers, as on other machines, is faulty by its environment; then the only one is."""
    with external(bench.folder, [{}, faulty]) as cluster:
        run = bench.extract(cluster.address)
    with external(bench.folder, [faulty]) as cluster:
        words = _refused(lambda: bench.extract(cluster.address))
    return _compared(bench, name, run, said=f"{_lines(run)} | alone: {words}")


def _compared(bench: Bench, name: str, run: Run, *, said: str) -> Outcome:
    lost, reference = bench.lost(run), bench.reference[0]
    found = f"{run.receipt.from_store} rows from the store, {run.receipt.computed} computed, {lost} lost"
    return Outcome(name, f"{found}. {said}", run.sha256 == reference.sha256, lost)


def _lines(run: Run) -> str:
    """What was said of workers, the same words once."""
    return " ".join(dict.fromkeys(line for line in run.said if line.startswith("Worker")))


def _refused(run: Callable[[], Run]) -> str:
    """Return the message of a run that must fail."""
    try:
        run()
    except RegraftError as error:
        return str(error)
    return "NO ERROR"


def _preload(folder: Path, code: str) -> Path:
    path = folder / f"preload_{abs(hash(code))}.py"
    path.write_text(code)
    return path


def _installed(folder: Path, name: str, version: str) -> Path:
    """Return a folder for PYTHONPATH in which a library seems to be installed in another version."""
    assert importlib.metadata.version(name) != version
    place = folder / f"{name}-{version}"
    (place / f"{name}-{version}.dist-info").mkdir(parents=True, exist_ok=True)
    (place / f"{name}-{version}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    return place
