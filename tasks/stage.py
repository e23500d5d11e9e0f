"""The seam between DVC and Prefect: one function is the DVC command, the in-process DVC stage and the Prefect task.

    python -m tasks.<stage>     runs the function; that is what dvc.yaml calls
    <stage>()                   in a flow: a Prefect task that asks DVC to bring the stage up to date. DVC decides as
                                in `dvc repro` (what changed, run cache, locks, dvc.lock); only its shell call is
                                replaced by the function, in this process.

This is the only module that knows both. No byte of any output passes through it, so no stage depends on it in dvc.yaml.
"""

import ctypes
import gc
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast
from uuid import UUID

from regraft.config import Params, load_params
from regraft.errors import Busy, InputsChanged, RegraftError, WrongFolder

if TYPE_CHECKING:
    from dvc.repo import Repo

ROOT_FILES = ("params.yaml", "dvc.yaml")
_PROGRESS_SECONDS = 2.0  # between two updates of Prefect's progress artifact
_LOCK_RETRIES, _LOCK_RETRY_SECONDS = 360, 10.0  # an hour: another run may be training

Report = Callable[[int, int], None]


class Progress(Protocol):
    """What a stage gets to say how far it is: `progress("photos")` returns a function of done and total."""

    def __call__(self, what: str) -> Report: ...


class Stage:
    """A stage of dvc.yaml; made by the decorator `@stage`."""

    def __init__(self, function: Callable[[Params, Progress], None]) -> None:
        self.name = function.__name__
        self.function = function
        self.__doc__ = function.__doc__

    def run(self) -> None:
        """Run the stage as a command: progress on the terminal, a message instead of a traceback, exit status 1."""
        with readable_errors(self.name):
            root = enter_project()
            with ExitStack() as guards:
                if os.environ.get("DVC_STAGE") == self.name:
                    guards.enter_context(_inputs_unchanged_for_command(root, self.name))
                self._run(load_params(root / "params.yaml"), terminal_progress)

    def __call__(self) -> None:
        """Bring the stage up to date as a Prefect task; its state is named Up to date, Restored or Ran."""
        self._task()

    def _run(self, params: Params, progress_of: Callable[[str], AbstractContextManager[Progress]]) -> None:
        from filelock import FileLock, Timeout

        # DVC keeps its own runs apart; this also covers a stage that is started by hand.
        try:
            with FileLock(_own_folder() / f"{self.name}.lock", timeout=0), progress_of(self.name) as progress:
                self.function(params, progress)
        except Timeout:
            raise Busy(
                f"stage {self.name} is running in another process. Wait for it to end, then start this again."
            ) from None

    @cached_property
    def _task(self) -> Callable[[], Any]:
        return dvc_task(self.name, self._bring_up_to_date)

    def _bring_up_to_date(self) -> Any:
        from prefect.states import Completed

        root = enter_project()
        params_file = root / "params.yaml"
        # Read when the stage begins, as DVC does: another run may have held the lock for hours, and params been edited.
        outcome = reproduce(root, self.name, lambda: self._run(load_params(params_file), prefect_progress))
        if outcome == "Ran":
            _give_memory_back()
        publish(self.name, load_params(params_file))
        return Completed(name=outcome, message=f"{self.name}: {outcome.lower()}")


def stage(function: Callable[[Params, Progress], None]) -> Stage:
    """Make a stage of a function that reads its inputs and writes its outputs at the paths in `params.paths`."""
    return Stage(function)


def dvc_task(name: str, function: Callable[[], Any]) -> Callable[..., Any]:
    """Return a Prefect task that is never cached by Prefect and retried only while another process holds DVC's lock.

    Prefect's own cache compares a path, not the file behind it. DVC and the store are the caches.
    """
    import prefect
    from prefect.cache_policies import NO_CACHE

    return prefect.task(
        name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=_LOCK_RETRIES,
        retry_delay_seconds=_LOCK_RETRY_SECONDS,
        retry_condition_fn=_is_busy,
    )(function)


def reproduce(root: Path, target: str, function: Callable[[], None] | None = None) -> str:
    """Bring one DVC stage up to date, with `function` in place of its shell command.

    Returns:
        "Up to date": nothing to do. "Restored": outputs came from DVC's run cache. "Recorded": changed data files were
        added to DVC. "Ran": the function ran.

    Raises:
        InputsChanged: an input changed while the function ran; dvc.lock is as it was.
    """
    ran = False

    def run() -> None:
        nonlocal ran
        ran = True
        assert function is not None
        function()

    token = _function.set(run if function else None)
    try:
        with open_repo(root) as repo:
            changed = repo.reproduce(target, single_item=True)
    except Exception as error:
        raise_cause(error)
    finally:
        _function.reset(token)
    if not changed:
        return "Up to date"
    return "Ran" if ran else "Restored" if function else "Recorded"


def record_data(root: Path, folder: Path) -> str:
    """Let DVC record the data folder as it is now, as `dvc add` and `dvc repro` do: "Recorded" or "Up to date"."""
    from regraft.manifest import check_folder

    check_folder(folder)  # DVC's own error says neither what was expected nor what to do
    pointer = root / f"{folder}.dvc"
    if pointer.exists():
        return reproduce(root, str(pointer.relative_to(root)))
    try:
        with open_repo(root) as repo:
            repo.add(str(folder))
    except Exception as error:
        raise_cause(error)
    return "Recorded"


def publish(stage_name: str, params: Params) -> None:
    """Show a stage's reports as Prefect artifacts of this run."""
    from prefect.artifacts import create_markdown_artifact

    from regraft.report import pages_of

    for key, markdown in pages_of(stage_name, params.paths.reports).items():
        create_markdown_artifact(markdown, key=key, description=stage_name)


def enter_project() -> Path:
    """Make sure that this process is in the project's root and return it."""
    root = Path.cwd()
    missing = [name for name in ROOT_FILES if not (root / name).is_file()]
    if missing:
        raise WrongFolder(
            f"run this in the project's root, the folder that holds {' and '.join(ROOT_FILES)}. "
            f"There is no {missing[0]} in {root}: change to the right folder first."
        )
    return root


@contextmanager
def readable_errors(name: str) -> Iterator[None]:
    """Print the message of a RegraftError without a traceback and leave with exit status 1."""
    # TensorFlow prints a page about itself otherwise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Python looks for garbage after every 700 new objects. An import of TensorFlow makes millions and no garbage: that
    # search was a third of its 2.6 s.
    gc.set_threshold(100_000, 20, 20)
    try:
        yield
    except RegraftError as error:
        print(f"\n{name} stopped: {error}", file=sys.stderr)
        sys.exit(1)


@contextmanager
def terminal_progress(name: str) -> Iterator[Progress]:
    """Progress bars on the terminal, one per thing that is counted."""
    from tqdm import tqdm

    bars: list[tqdm] = []

    def progress(what: str) -> Report:
        bar: tqdm | None = None

        def report(done: int, total: int) -> None:
            nonlocal bar
            if bar is None and total:  # nothing to do needs no bar
                bar = tqdm(total=total, desc=name, unit=f" {what}", dynamic_ncols=True, mininterval=0.5)
                bars.append(bar)
            if bar is not None:
                bar.update(done - bar.n)

        return report

    try:
        yield progress
    finally:
        for bar in bars:
            bar.close()


@contextmanager
def prefect_progress(name: str) -> Iterator[Progress]:
    """Progress on the terminal and, every few seconds, as a progress artifact of this task run."""
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    with terminal_progress(name) as terminal:

        def progress(what: str) -> Report:
            on_terminal = terminal(what)
            artifact: UUID | None = None
            start = last = time.monotonic()

            def report(done: int, total: int) -> None:
                nonlocal artifact, last
                on_terminal(done, total)
                if not total:
                    return
                percent = 100.0 * done / total
                if artifact is None:
                    key = re.sub(r"[^a-z0-9]+", "-", f"{name} {what} progress".lower())
                    artifact = cast(UUID, create_progress_artifact(percent, key=key, description=f"{name}: {what}"))
                elif done == total or time.monotonic() - last > _PROGRESS_SECONDS:
                    words = f"{name}: {done} of {total} {what}{_pace(done, total, time.monotonic() - start)}"
                    update_progress_artifact(artifact, percent, description=words)
                else:
                    return
                last = time.monotonic()

            return report

        yield progress


def _pace(done: int, total: int, seconds: float) -> str:
    """How fast it goes and how long it will take, in words."""
    if not done or seconds < _PROGRESS_SECONDS:
        return ""
    left = timedelta(seconds=round((total - done) * seconds / done))
    return f", {done / seconds:.1f} a second, {left} left"


def raise_cause(error: Exception) -> NoReturn:
    """DVC wraps what went wrong in errors that do not say it; raise what did."""
    from dvc.lock import LockError

    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, RegraftError | LockError):
        cause = cause.__cause__
    if isinstance(cause, LockError):
        raise Busy(str(cause)) from None
    raise cause from None


_function: ContextVar[Callable[[], None] | None] = ContextVar("function", default=None)


def open_repo(root: Path) -> "Repo":
    """Open DVC's repository with the seam in place.

    The lock is waited for: with DVC's three seconds a finished training would be lost whenever another process holds it
    longer.
    """
    import dvc.stage.run
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError

    if dvc.stage.run.cmd_run is not _run_function:
        _run_shell.append(dvc.stage.run.cmd_run)
        dvc.stage.run.cmd_run = _run_function
        # Its handlers would print every line a second time, outside of the task that it belongs to.
        logging.getLogger("dvc").handlers.clear()
        logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)  # advice on `git add` after every stage
    _mend_lock_file(root)
    try:
        return Repo(str(root), _wait_for_lock=True)
    except NotDvcRepoError:
        raise not_a_dvc_project(root) from None
    except SCMError:
        raise WrongFolder(
            f"{root} is set up for git, and there is no git repository. Run `git init`, or "
            f"`dvc config core.no_scm true` to go without."
        ) from None


def not_a_dvc_project(root: Path) -> WrongFolder:
    """Return the error for a folder without DVC."""
    return WrongFolder(f"{root} is not a DVC project yet. Run `dvc init`, or `dvc init --no-scm` outside git.")


def _mend_lock_file(root: Path) -> None:
    """Remove .dvc/tmp/rwlock if it is no JSON: DVC writes it in place, and a kill just then stops every later run."""
    path = root / ".dvc" / "tmp" / "rwlock"
    for pause in (1.0, 0.0):  # another process may be writing it just now
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError:
            time.sleep(pause)
        else:
            return
    path.unlink(missing_ok=True)


_run_shell: list[Callable[..., None]] = []


def _run_function(stage: Any, dry: bool = False, run_env: dict[str, str] | None = None) -> None:
    """What DVC calls to run a stage: the function that `reproduce` set in this context, or else the shell command."""
    function = _function.get()
    if function is None or dry:
        _run_shell[0](stage, dry=dry, run_env=run_env)
        return
    with _inputs_unchanged(stage):
        function()


@contextmanager
def _inputs_unchanged(stage: Any) -> Iterator[None]:
    """Raise InputsChanged if a dependency differs afterwards: no lock entry could describe what was made."""
    stale = [str(dep) for dep in stage.deps if _is_loaded_in_another_version(Path(dep.fs_path))]
    if stale:
        raise InputsChanged(
            f"{', '.join(stale)} changed after this run was started, and the old code is loaded. Start it again."
        )
    before = {str(dep): dep.get_hash() for dep in stage.deps}
    yield
    changed = [str(dep) for dep in stage.deps if not dep.exists or dep.get_hash() != before[str(dep)]]
    if changed:
        raise InputsChanged(
            f"{', '.join(changed)} changed while {stage.addressing} ran, so its result belongs to neither version. "
            f"Nothing was recorded. Run again."
        )


@contextmanager
def _inputs_unchanged_for_command(root: Path, name: str) -> Iterator[None]:
    """The same for a stage that `dvc repro` started: plain DVC would record the inputs as they were before."""
    with open_repo(root) as repo, _inputs_unchanged(repo.stage.load_one(name=name)):
        yield


def _read_sources() -> dict[Path, bytes]:
    """The project's code as it is when this process starts; a flow imports every stage then."""
    root = Path(__file__).resolve().parents[1]
    files = [file for folder in ("regraft", "tasks") for file in (root / folder).rglob("*.py")]
    return {file: file.read_bytes() for file in files}


_sources = _read_sources()


def _is_loaded_in_another_version(path: Path) -> bool:
    path = path.resolve()
    return path in _sources and (not path.exists() or path.read_bytes() != _sources[path])


def _give_memory_back() -> None:
    """Return freed memory to the system: the stages of a flow share a process, and their peaks must not add up."""
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it, other C libraries do not
        trim(0)


def _own_folder() -> Path:
    if not Path(".dvc").is_dir():
        raise not_a_dvc_project(Path.cwd())
    folder = Path(".dvc", "tmp", "regraft")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_busy(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a task failed only because another process holds DVC's lock."""
    try:
        state.result()
    except Busy:
        return True
    except BaseException:
        return False
    return False
