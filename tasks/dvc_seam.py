"""The seam to DVC: a stage of dvc.yaml is brought up to date in this process, with a function in place of its command.

DVC decides as in `dvc repro`: what changed, run cache, locks, dvc.lock. Only its shell call is replaced.
"""

import logging
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from regraft.core.errors import Busy, InputsChanged, RegraftError, WrongFolder
from tasks.code_record import RECORD, RECORDER, changed_since_recorded, changed_since_start, has_other_libraries
from tasks.dvc_files import check_whole, saying_what_to_pull
from tasks.project import disk_in_words, enter_project
from tasks.safe_dvc import SITE_CACHE, make_safe

if TYPE_CHECKING:
    from dvc.repo import Repo


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
            force = target == RECORDER and has_other_libraries(root)
            changed = repo.reproduce(target, single_item=True, force=force)
    except Exception as error:
        raise_cause(error)
    finally:
        _function.reset(token)
    if not changed:
        return "Up to date"
    return "Ran" if ran else "Restored" if function else "Recorded"


def record_data(root: Path, folder: Path) -> str:
    """Let DVC record the data folder as it is now, as `dvc add` and `dvc repro` do: "Recorded" or "Up to date"."""
    from regraft.photos.folder import check_folder

    with saying_what_to_pull(folder):
        check_folder(folder)  # before DVC looks: it waits for a pipe, and runs the commands of a dvc.yaml
    pointer = root / f"{folder}.dvc"
    try:
        check_whole(pointer, "outs")
        if pointer.exists():
            return reproduce(root, str(pointer.relative_to(root)))
        with open_repo(root) as repo:
            _check_not_ignored(repo, pointer)
            repo.add(str(folder))
    except Exception as error:
        raise_cause(error)
    return "Recorded"


def is_up_to_date(root: Path, folder: Path) -> bool:
    """Whether the data folder is recorded as it is now, and every stage has been run on what there is to run it on.

    Where DVC cannot tell, because of a damaged file or another run, the answer is False: the run that follows says why.
    """
    from dvc.exceptions import DvcException

    pointer = root / f"{folder}.dvc"
    if not pointer.exists():
        return False
    try:
        with open_repo(root) as repo:
            return not has_other_libraries(root) and not repo.status()
    except DvcException:
        return False


def raise_cause(error: Exception) -> NoReturn:
    """DVC wraps what went wrong in errors that do not say it; raise what did."""
    from dvc.exceptions import DvcException, ReproductionError
    from dvc.lock import LockError

    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None and not isinstance(causes[-1], RegraftError | LockError):
        causes.append(causes[-1].__cause__)
    cause = causes[-1]
    if isinstance(cause, LockError):
        raise Busy(str(cause)) from None
    of_dvc = [each for each in causes if isinstance(each, DvcException) and not isinstance(each, ReproductionError)]
    if of_dvc and not isinstance(cause, RegraftError | OSError):
        details = "" if cause is of_dvc[-1] else f" ({' '.join(str(cause).split())})"
        raise RegraftError(f"DVC cannot go on: {of_dvc[-1]}{details}. Put that right, and run again.") from None
    with disk_in_words():
        raise cause from None


_function: ContextVar[Callable[[], None] | None] = ContextVar("function", default=None)


def open_repo(root: Path) -> "Repo":
    """Open DVC's repository with the seam in place.

    The lock is waited for: with DVC's three seconds a finished training would be lost whenever another process holds it
    longer.
    """
    import dvc.stage.run
    from dvc.exceptions import NotDvcRepoError
    from dvc.scm import SCMError

    if dvc.stage.run.cmd_run is not _run_function:
        _run_shell.append(dvc.stage.run.cmd_run)
        dvc.stage.run.cmd_run = _run_function
        # Its handlers would print every line a second time, outside of the task that it belongs to.
        logging.getLogger("dvc").handlers.clear()
        logging.getLogger("dvc").setLevel(logging.WARNING)  # a step says itself what became of it
        make_safe()
    try:
        return _open(root)
    except NotDvcRepoError:
        raise not_a_dvc_project(root) from None
    except SCMError:
        raise WrongFolder(
            f"{root} is set up for git, and there is no git repository. Run `git init`, or "
            f"`dvc config core.no_scm true` to go without."
        ) from None


def _open(root: Path) -> "Repo":
    from dvc.repo import Repo

    try:
        return Repo(str(root), _wait_for_lock=True)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        shutil.rmtree(root / SITE_CACHE, ignore_errors=True)  # hashes only: DVC works them out again
        return Repo(str(root), _wait_for_lock=True)


def enter_dvc_project() -> Path:
    """Return the project's root, as `enter_project` does, where DVC is used: what we keep in .dvc must not make it.

    Raises:
        WrongFolder: the process is elsewhere, or `dvc init` was never called.
    """
    root = enter_project()
    if not (root / ".dvc").is_dir():
        raise not_a_dvc_project(root)
    return root


def not_a_dvc_project(root: Path) -> WrongFolder:
    """Return the error for a folder without DVC."""
    return WrongFolder(f"{root} is not a DVC project yet. Run `dvc init`, or `dvc init --no-scm` outside git.")


def _check_not_ignored(repo: "Repo", pointer: Path) -> None:
    """Raise RegraftError where .dvcignore hides the file that DVC writes beside the data folder."""
    if repo.dvcignore.is_ignored_file(str(pointer)):
        name = pointer.relative_to(repo.root_dir).as_posix()
        raise RegraftError(f".dvcignore hides {name} from DVC. Put the line !/{name} at its end, and run again.")


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
    """Raise InputsChanged if a dependency, the code or a library is not, or is no longer, what dvc.lock would say."""
    root, name = Path(stage.repo.root_dir), stage.addressing
    is_recorded = any(Path(dep.fs_path) == root / RECORD for dep in stage.deps)
    if is_recorded:
        _check_code(root, name)
    before = {str(dep): dep.get_hash() for dep in stage.deps}
    yield
    changed = [str(dep) for dep in stage.deps if not dep.exists or dep.get_hash() != before[str(dep)]]
    if is_recorded:
        changed += changed_since_recorded(name, root)
    if changed:
        raise InputsChanged(
            f"{', '.join(changed)} changed while {name} ran, so its result belongs to neither version. "
            f"Nothing was recorded. Run again."
        )


def _check_code(root: Path, stage: str) -> None:
    """Raise InputsChanged unless this process runs the code and the libraries that are recorded for a stage."""
    if changed := changed_since_start(stage):
        raise InputsChanged(
            f"{', '.join(changed)} changed after this run was started, and the old version may be loaded. Start it "
            f"again."
        )
    if changed := changed_since_recorded(stage, root):
        raise InputsChanged(
            f"{RECORD} is older than what {stage} runs: {', '.join(changed)} changed since. Run "
            f"`dvc repro --force --single-item {RECORDER}`, and then this again."
        )


@contextmanager
def inputs_unchanged_for_command(root: Path, name: str) -> Iterator[None]:
    """The same for a stage that `dvc repro` started: plain DVC would record the inputs as they were before."""
    if find_spec("regraft_dvc") is None:
        print("A kill of this `dvc` may damage dvc.lock. Run `make setup`, which changes it.", file=sys.stderr)
    with open_repo(root) as repo, _inputs_unchanged(repo.stage.load_one(name=name)):
        yield
