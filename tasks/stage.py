"""A stage: one function is the DVC command, the in-process DVC stage and the Prefect task.

    python -m tasks.<stage>     runs the function; that is what dvc.yaml calls
    <stage>()                   in a flow: a Prefect task that asks DVC to bring the stage up to date (`tasks.dvc_seam`)

No byte of any output passes through it, so no stage depends on it in dvc.yaml.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

from regraft.config import Params
from regraft.errors import Busy
from regraft.params_file import load_params
from tasks.dvc_seam import inputs_unchanged_for_command, not_a_dvc_project, reproduce
from tasks.progress import Progress, prefect_progress, terminal_progress
from tasks.project import enter_project, readable_errors
from tasks.startup import quieten_libraries

_LOCK_RETRIES, _LOCK_RETRY_SECONDS = 360, 10.0  # an hour: another run may be training


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
                    guards.enter_context(inputs_unchanged_for_command(root, self.name))
                self._run(load_params(root / "params.yaml"), terminal_progress)

    def __call__(self) -> None:
        """Bring the stage up to date as a Prefect task; its state is named Up to date, Restored or Ran."""
        self._task()

    def _run(self, params: Params, progress_of: Callable[[str], AbstractContextManager[Progress]]) -> None:
        from filelock import FileLock, Timeout

        quieten_libraries()
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


def publish(stage_name: str, params: Params) -> None:
    """Show a stage's reports as Prefect artifacts of this run."""
    from prefect.artifacts import create_markdown_artifact

    from tasks.report import pages_to_publish

    for key, markdown in pages_to_publish(stage_name, params).items():
        create_markdown_artifact(markdown, key=key, description=stage_name)


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
