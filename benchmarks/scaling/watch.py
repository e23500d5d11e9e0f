"""What a command took, and each stage that it ran: seconds, and the memory of the whole tree of processes.

A stage is a process whose command line names its module, `-m tasks.<stage>`, with all that it started; `dvc repro` and
a command of our own are watched alike. Memory is anonymous and shared pages of all processes together (`RssAnon` and
`RssShmem`). Pages of files are left out: the kernel takes them back whenever it needs memory. It is looked at twenty
times a second, so a peak that is shorter may be missed, and seconds of a stage are true to a tenth. The memory of a
process counts from the second look at it: until it runs its own program, its parent's pages are shown as its own.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_PAUSE = 0.05  # seconds between two looks
_TICKS = os.sysconf("SC_CLK_TCK")
_STAGE = re.compile(rb"-m[ \0]tasks\.(\w+)")
_MEMORY = re.compile(rb"^Rss(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)


@dataclass(slots=True)
class Took:
    """What a stage, or a whole command, took."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all its processes; on a busy machine these tell more
    peak_memory_mb: float = 0.0

    def as_json(self) -> dict[str, float]:
        """Return it rounded."""
        return {name: round(value, 2 if name != "peak_memory_mb" else None) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Watched:
    """What a command took."""

    whole: Took
    stages: dict[str, Took]  # those that it ran, in their order
    beside: Took  # the rest: what belongs to no stage


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    stage: str | None  # that it belongs to
    cpu_seconds: float
    memory_mb: float


def watched(
    command: list[str], folder: Path, environment: dict[str, str], *, log: Path, accepted: tuple[int, ...] = (0,)
) -> Watched:
    """Run a command to its end; a failure ends this process too.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        environment: all its variables.
        log: takes what it prints.
        accepted: exit statuses that are no failure.
    """
    whole, beside, stages, begun, seen = Took(), Took(), {}, {}, set[int]()
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        while process.poll() is None:
            now = time.perf_counter() - start
            of_all = list(_tree(process.pid, None, seen))
            seen = {each.pid for each in of_all}
            _note(whole, now, of_all)
            _note(beside, now, [each for each in of_all if each.stage is None])
            for stage in {each.stage for each in of_all if each.stage}:
                seconds = now - begun.setdefault(stage, now) + _PAUSE
                _note(stages.setdefault(stage, Took()), seconds, [each for each in of_all if each.stage == stage])
            time.sleep(_PAUSE)
        whole.seconds = time.perf_counter() - start
    if process.returncode not in accepted:
        said = log.read_text(errors="replace")[-4000:]
        sys.exit(f"{' '.join(command[1:])} ended with status {process.returncode}:\n{said}")
    # A process counts the seconds of those that it started, once they have ended: here these are stages.
    beside.seconds = whole.seconds - sum(took.seconds for took in stages.values())
    beside.cpu_seconds = whole.cpu_seconds - sum(took.cpu_seconds for took in stages.values())
    return Watched(whole, stages, beside)


def watched_stage(name: str, folder: Path, *, root: Path) -> Took:
    """Run one stage in a folder as a process of its own, with the code of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    return watched([sys.executable, "-m", f"tasks.{name}"], folder, environment, log=folder / f"{name}.log").whole


def _note(took: Took, seconds: float, processes: list[_Process]) -> None:
    took.seconds = seconds
    took.cpu_seconds = max(took.cpu_seconds, sum(each.cpu_seconds for each in processes))
    took.peak_memory_mb = max(took.peak_memory_mb, sum(each.memory_mb for each in processes))


def _tree(pid: int, stage: str | None, seen: set[int]) -> Iterator[_Process]:
    """A process and all that it started; those that were not seen before have no memory yet."""
    with suppress(OSError):  # one that has ended meanwhile
        folder = Path("/proc", str(pid))
        if stage is None and (named := _STAGE.search((folder / "cmdline").read_bytes())):
            stage = named[1].decode()
        sizes = _MEMORY.findall((folder / "status").read_bytes()) if pid in seen else []
        times = (folder / "stat").read_bytes().rpartition(b")")[2].split()[11:15]  # its own, and of those that ended
        yield _Process(pid, stage, sum(map(int, times)) / _TICKS, sum(map(int, sizes)) * 1024 / 1e6)
        for thread in (folder / "task").iterdir():
            for child in (thread / "children").read_bytes().split():
                yield from _tree(int(child), stage, seen)
