"""A project of the real stages, small enough that one takes seconds, and everything that works in it as a process.

A parent that has imported everything, and made no session of TensorFlow or ONNX Runtime, forks each process. What is a
command for a person (`dvc repro`, `regraft retrain`) is then started in its place, as a person does.
"""

import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from ruamel.yaml import YAML

import tasks.dvc_seam
from flows.cli import app
from regraft.core.files import sha256_of
from regraft.core.params_file import load_params
from regraft.production.gate import rule
from regraft.production.registry import Production
from regraft.store import leases
from tasks import promote as gate
from tasks.progress import terminal_progress
from tasks.project import readable_errors
from tests.support.pipeline import ROOT, STAGES, write_params
from tests.support.project import clean_environment
from tests.support.small_project import write_photos

ALL_STAGES = ["record_code", *STAGES]
_SETTINGS = ["backbone.weights=null", "backbone.image_size=64", "preprocess.val_share=0.25"]
_SETTINGS += ["preprocess.test_share=0.25", "fine_tune.epochs=2"]
_SETTINGS += [
    "backbone.cut=block13_add",
    "cache_features.views=1",
]
_SETTINGS += ["promote.when_undecided=promote"]
_COPIED = ["dvc.yaml", "pyproject.toml", "requirements.lock", ".gitignore", ".dvcignore", "expectations"]
_LINKED = ["regraft", "tasks", "flows"]  # the code of this project
# What a run found says how many rows the store had, and whether there was a record of the base: a kill may change it.
_FOUND = ("reports/features.json", "reports/base.json")
_PATIENCE_SECONDS = 600
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__, "tests.stress.imported"])


@dataclass(frozen=True)
class KilledProject:
    """The project's folder."""

    root: Path
    environment: dict[str, str]

    def start(self, action: str, **variables: str) -> "Run":
        """Start one of `ACTIONS`."""
        return Run(self.root, action, self.environment | variables)

    def succeed(self, action: str, **variables: str) -> float:
        """Let it end, which must go well, and return its seconds."""
        run = self.start(action, **variables)
        if status := run.wait():
            raise AssertionError(f"{action} ended with {status}:\n{run.output[-3000:]}")
        return time.perf_counter() - run.started

    @property
    def lock(self) -> Path:
        """DVC's record of what was made from what."""
        return self.root / "dvc.lock"

    @property
    def production(self) -> Production:
        """The model that services read."""
        return Production(self.root / "models" / "production")

    def outputs(self, stages: list[str]) -> list[Path]:
        """Return the files that stages write, as dvc.lock names them."""
        entries = _entries(self.lock)
        return [self.root / out["path"] for stage in stages for out in entries.get(stage, {}).get("outs", [])]

    def forget(self, stages: list[str]) -> None:
        """Let it be as if these stages had not run yet, so that the next run computes their results."""
        for path in self.outputs(stages):
            path.unlink(missing_ok=True)
        lock = YAML(typ="safe").load(self.lock.read_text())
        for stage in stages:
            lock["stages"].pop(stage, None)
        with self.lock.open("w") as file:
            YAML().dump(lock, file)
        shutil.rmtree(self.root / ".dvc" / "cache" / "runs", ignore_errors=True)

    def state(self) -> dict[str, object]:
        """Return all that must be the same whatever was killed."""
        entries = _entries(self.lock)
        for entry in entries.values():
            entry["outs"] = [out for out in entry["outs"] if out["path"] not in _FOUND]
        state: dict[str, object] = {f"dvc.lock: {stage}": entries.get(stage) for stage in ALL_STAGES}
        for path in self.outputs(ALL_STAGES):
            name = path.relative_to(self.root).as_posix()
            state[name] = path.exists() if name in _FOUND else sha256_of(path) if path.exists() else "missing"
        standing = self.production.standing()
        return state | {"production": standing.digest, "problem": standing.problem}


class Run:
    """A process, with all that it starts in a session of its own."""

    def __init__(self, root: Path, action: str, environment: dict[str, str]) -> None:
        self._output = root.parent / "output.txt"
        self._process = _context.Process(target=_work, args=(root, self._output, action, environment))
        self.started = time.perf_counter()
        self._process.start()
        self.pid = self._process.pid or 0

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    @property
    def output(self) -> str:
        """What a person saw."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def descendants(self) -> list[psutil.Process]:
        """Return all processes that it started."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def kill(self, how: str, choose: random.Random) -> bool:
        """Kill -9 the `process` alone, its whole `group`, or one `child`; False if it had ended before.

        After a kill of the first alone, those that it started go on, and are waited for.
        """
        left = self.descendants()
        if not self.is_running:
            return False
        if how == "child" and left:
            with suppress(psutil.NoSuchProcess):
                choose.choice(left).kill()
            self.wait()
            return True
        if how == "group":
            with suppress(ProcessLookupError):  # in its first moment it has no group of its own
                os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.join()
        psutil.wait_procs(left, timeout=_PATIENCE_SECONDS)
        return self._process.exitcode == -signal.SIGKILL

    def wait(self) -> int:
        """Wait for the end and return the exit status."""
        self._process.join(_PATIENCE_SECONDS)
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.join()
            return -1
        return self._process.exitcode or 0


def make_project(folder: Path, settings: Sequence[str] = (), per_class: int = 24) -> KilledProject:
    """Make the project, with git and DVC, in which nothing has run yet.

    Args:
        folder: that it is made in.
        settings: changes of params.yaml, as `fine_tune.epochs=2`.
        per_class: photos of each of three classes.
    """
    root = folder / "project"
    root.mkdir(parents=True)
    for name in _COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / name)
    for name in _LINKED:
        (root / name).symlink_to(ROOT / name)
    write_params(root / "params.yaml", [*_SETTINGS, *settings])
    write_photos(root / "data" / "raw", per_class)
    environment = clean_environment(folder / "home")
    del environment["DVC_SITE_CACHE_DIR"]  # it lies in the project
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, env=environment, check=True)
    return KilledProject(root, environment)


def _work(root: Path, output: Path, action: str, environment: dict[str, str]) -> None:
    os.setsid()
    file = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(root)
    with readable_errors(action):
        ACTIONS[action](root)


def _retrain(root: Path) -> None:
    """What the flow does, in its order, without Prefect around it; the gate decides on any number of photos."""
    rule.MIN_PHOTOS = 1
    tasks.dvc_seam.record_data(root, load_params(root / "params.yaml").paths.raw)
    for name in ALL_STAGES:
        stage = getattr(importlib.import_module(f"tasks.{name}"), name)
        run = partial(stage._run, load_params(root / "params.yaml"), terminal_progress)
        tasks.dvc_seam.reproduce(root, name, run)
    with terminal_progress("promote_model") as progress:
        gate.challenge(load_params(root / "params.yaml"), progress)


def _change_production(root: Path) -> None:
    """Put two models into production by turns, and back."""
    params = load_params(root / "params.yaml")
    folder = root.parent / "promotions"
    for turn in range(10_000):
        paths = params.paths.model_copy(
            update={"production": folder / "production", "onnx": folder / f"{turn % 2}.onnx"}
        )
        gate.force(params.model_copy(update={"paths": paths}), "a test")
        if turn % 3 == 2:
            gate.rollback(params.model_copy(update={"paths": paths}))


def _renew_a_lease(root: Path) -> None:
    """Renew a lease without pause, as one is renewed every minute."""
    leases._RENEW_SECONDS = 0.001  # type: ignore[assignment]
    with leases.store_in_use(root / "build" / "store", None):
        time.sleep(60)


def _print_status(root: Path) -> None:
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        print(json.dumps(repo.status(), default=str))


ACTIONS: dict[str, Callable[[Path], None]] = {
    "flow": _retrain,
    "dvc repro": lambda root: os.execvp("dvc", ["dvc", "repro"]),
    "regraft retrain": lambda root: os.execvp(sys.executable, [sys.executable, "-m", "flows.cli", "retrain"]),
    "promotion": _change_production,
    "gc": lambda root: app(["store", "--gc", "0", "--yes"], standalone_mode=False),
    "lease": _renew_a_lease,
    "status": _print_status,
}


def _entries(lock: Path) -> dict[str, dict]:
    return YAML(typ="safe").load(lock.read_text()).get("stages", {})
