"""A stage: one function is the DVC command, the in-process DVC stage and a step of a run.

    python -m tasks.<stage>     runs the function; that is what dvc.yaml calls
    <stage>()                   in a flow: asks DVC to bring the stage up to date (`tasks.dvc_seam`), as a Prefect task
                                where a server follows the run (`tasks.step`)

No byte of any output passes through it, so no stage depends on it in dvc.yaml.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

from regraft.core.config import Params
from regraft.core.errors import Busy, Damaged, RegraftError
from tasks import step
from tasks.disk_space import check_room
from tasks.dvc_files import saying_what_to_pull
from tasks.dvc_seam import inputs_unchanged_for_command, not_a_dvc_project, reproduce
from tasks.found_store import load_project
from tasks.progress import Progress, run_progress, terminal_progress
from tasks.project import enter_project, quieten_libraries, readable_errors
from tasks.stage_limits import within_hours
from tasks.step import Outcome
from tasks.stopping import end_with_dvc, raise_if_stopped


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
                    end_with_dvc()
                    guards.enter_context(inputs_unchanged_for_command(root, self.name))
                self._run(load_project(root), terminal_progress)

    def __call__(self) -> None:
        """Bring the stage up to date as a step of a run, which is named Up to date, Restored or Ran."""
        step.step(self.name, self._bring_up_to_date)

    def _run(self, params: Params, progress_of: Callable[[str], AbstractContextManager[Progress]]) -> None:
        from filelock import FileLock, Timeout

        quieten_libraries()
        # DVC keeps its own runs apart; this also covers a stage that is started by hand.
        try:
            with FileLock(_own_folder() / f"{self.name}.lock", timeout=0), progress_of(self.name) as progress:
                check_room(Path.cwd(), params, self.name)
                with within_hours(self.name, params.nights.stage_hours), saying_what_to_pull(params.paths.raw):
                    self.function(params, progress)
                raise_if_stopped()
        except Timeout:
            raise Busy(
                f"stage {self.name} is running in another process. Wait for it to end, then start this again."
            ) from None

    def _bring_up_to_date(self) -> Outcome:
        root = enter_project()

        def progress_of(name: str) -> AbstractContextManager[Progress]:
            return run_progress(name, step.progress_of_run)

        try:
            # Read when the stage begins, as DVC does: another run may have been waited for, and params been edited.
            outcome = reproduce(root, self.name, lambda: self._run(load_project(root), progress_of))
        except Busy:
            raise
        except RegraftError:
            # What it found before it stopped is what a person wants to see.
            with suppress(FileNotFoundError, Damaged, KeyError):
                self._publish(load_project(root), has_stopped=True)
            raise
        if outcome == "Ran":
            step.give_memory_back()
        self._publish(load_project(root))
        return Outcome(outcome, f"{self.name}: {outcome.lower()}")

    def _publish(self, params: Params, *, has_stopped: bool = False) -> None:
        if not step.is_followed():
            return
        from tasks.report import pages_of_stopped, pages_to_publish

        pages = pages_of_stopped if has_stopped else pages_to_publish
        step.publish(self.name, pages(self.name, params))


def stage(function: Callable[[Params, Progress], None]) -> Stage:
    """Make a stage of a function that reads its inputs and writes its outputs at the paths in `params.paths`."""
    return Stage(function)


def _own_folder() -> Path:
    if not Path(".dvc").is_dir():
        raise not_a_dvc_project(Path.cwd())
    folder = Path(".dvc", "tmp", "regraft")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
