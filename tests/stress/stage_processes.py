"""Small projects around one store, and the stage `cache_features` as a process that can be killed at any moment.

A parent that has imported everything and made no ONNX Runtime session forks each of these processes, so that one is
ready in milliseconds and hundreds of kills take minutes.
"""

import multiprocessing
import os
import re
import resource
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock  # noqa: F401 - the stage imports it when it runs; here it is imported once for all processes
from tqdm import tqdm

from regraft.core.files import read_json
from regraft.features import forward_passes
from regraft.photos.dataset import Dataset, write_dataset
from tasks.cache_features import cache_features
from tests.support.photos import read_folder
from tests.support.pipeline import ROOT, write_params

FLUSH_ROWS = 32  # so that a short run writes often
_PATIENCE_SECONDS = 300
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


@dataclass(frozen=True, slots=True)
class Project:
    """A project's folder; its store may be a link to one that several projects fill."""

    root: Path

    @property
    def store(self) -> Path:
        """The store's folder."""
        return self.root / "build" / "store"

    @property
    def features(self) -> Path:
        """What the stage writes."""
        return self.root / "build" / "features.arrow"

    @property
    def receipt(self) -> dict:
        """What the last completed run says of itself."""
        return read_json(self.root / "reports" / "features.json")

    def start(
        self, *, flush_rows: int = FLUSH_ROWS, environment: Mapping[str, str] | None = None, largest_file: int = 0
    ) -> "Worker":
        """Start the stage in a process of its own and return as soon as that process is ready.

        Args:
            flush_rows: computed rows after which the stage writes a shard.
            environment: variables to set.
            largest_file: bytes after which the system refuses to write on to a file; 0 is no limit.
        """
        return Worker(self, flush_rows, dict(environment or {}), largest_file)


class Worker:
    """One run of the stage."""

    def __init__(self, project: Project, *settings: object) -> None:
        self._output = project.root / "output.txt"
        ready, sender = _context.Pipe(duplex=False)
        self._process = _context.Process(target=_work, args=(project.root, self._output, sender, *settings))
        self._process.start()
        sender.close()
        ready.recv_bytes()
        self.ready = time.perf_counter()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid or 0

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    def pause(self) -> None:
        """Let a few milliseconds of it pass."""
        self._process.join(0.002)

    def kill(self) -> bool:
        """Kill -9; False if it had ended before."""
        self._process.kill()
        self._process.join()
        return self._process.exitcode == -9

    def wait(self) -> int:
        """Wait for the end and return the exit status."""
        self._process.join(_PATIENCE_SECONDS)
        if self.is_running:
            self.kill()
        return self._process.exitcode or 0

    @property
    def message(self) -> str:
        """What a person reads on the terminal, without progress bars."""
        lines = re.split(r"[\r\n]+", self._output.read_text(errors="replace"))
        return " ".join(line.strip() for line in lines if line.strip() and "it/s" not in line and "%|" not in line)


def _work(root: Path, output: Path, ready, flush_rows: int, environment: dict[str, str], largest_file: int) -> None:
    """Run the stage as `python -m tasks.cache_features` does."""
    terminal = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(terminal, 1)
    os.dup2(terminal, 2)
    os.environ.update(environment)
    os.chdir(root)
    tqdm.set_lock(threading.RLock())  # its own lock is a semaphore of the system, which a kill would leave behind
    forward_passes._FLUSH_ROWS = flush_rows
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    ready.send_bytes(b"ready")
    cache_features.run()


def choose_images(raw: Path, count: int) -> Dataset:
    """Return so many images of a folder, from everywhere in it, with their splits."""
    dataset = read_folder(raw, share=0.15)
    step = max(1, len(dataset) // count)
    return dataset.with_rows(dataset.rows[::step].head(count).reset_index(drop=True))


def project_maker(raw: Path, dataset: Dataset, settings: list[str]) -> Callable[..., Project]:
    """Return a function that makes a project of these photos in a new folder.

    It takes the folder, and by name: `store`, a store to link to; `copy_of`, one to copy, or just its graphs if
    `empty`; `shared`, the address of the shared store.
    """

    def make(
        root: Path, *, store: Path | None = None, copy_of: Path | None = None, empty: bool = False, shared: str = "null"
    ) -> Project:
        project = Project(root)
        for folder in (".dvc", "data", "build"):
            (root / folder).mkdir(parents=True)
        (root / "data" / "raw").symlink_to(raw.resolve())
        shutil.copy(ROOT / "dvc.yaml", root)
        write_params(root / "params.yaml", [*settings, f"machine.shared_store={shared}"])
        write_dataset(root / "build" / "dataset.parquet", dataset)
        if store:
            store.mkdir(exist_ok=True)
            project.store.symlink_to(store.resolve())
        if copy_of:
            source, target = (copy_of / "graphs", project.store / "graphs") if empty else (copy_of, project.store)
            shutil.copytree(source, target, dirs_exist_ok=True)
        return project

    return make
