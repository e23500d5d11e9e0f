"""A step of a run: a Prefect task where a server follows the run, the same function without Prefect where none does."""

import ctypes
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from regraft.core.errors import Busy, RegraftError
from tasks.progress import at
from tasks.runs.current_run import StageRun, current_run

_LOOK_SECONDS = 5.0  # between two tries while another process holds DVC's lock


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step ended well."""

    name: str  # of its state
    message: str = ""
    type: str = "COMPLETED"  # of Prefect's types; CANCELLED is neither red nor green


def step(name: str, function: Callable[[], Outcome]) -> Outcome:
    """Run one step of a run, and note what became of it.

    While another process holds DVC's lock, it is tried again.

    Raises:
        RegraftError: of the function.
    """
    run, begun, became = current_run(), time.monotonic(), "Failed"
    at(name)  # DVC looks at what changed before the stage itself begins
    try:
        outcome = _as_task(name, function) if run and run.reports else _alone(name, function)
        became = outcome.name
        return outcome
    except (KeyboardInterrupt, SystemExit):
        became = "Stopped"
        raise
    finally:
        if run:
            run.stages.append(StageRun(name, became, time.monotonic() - begun))


def _alone(name: str, function: Callable[[], Outcome]) -> Outcome:
    outcome = _patiently(function)
    print(f"{name}: {outcome.name}", file=sys.stderr, flush=True)
    return outcome


def _as_task(name: str, function: Callable[[], Outcome]) -> Outcome:
    """Run it as a Prefect task, which is never cached by Prefect: DVC and the store are the caches.

    What went wrong reaches the person as its own message, so it is no exception for Prefect, which would print a page.
    """
    import prefect
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.objects import State, StateType

    begun: list[bool] = []
    outcomes: list[Outcome] = []
    problems: list[RegraftError] = []

    def run() -> State:
        begun.append(True)
        if here := current_run():
            here.task_run = str(prefect.runtime.task_run.id)
        try:
            outcome = _patiently(function)
        except RegraftError as error:
            problems.append(error)
            return State(type=StateType.FAILED, name="Failed", message=str(error))
        outcomes.append(outcome)
        return State(type=StateType(outcome.type), name=outcome.name, message=outcome.message)

    _say_errors_once()
    task = prefect.task(name=name, cache_policy=NO_CACHE, persist_result=False)(run)
    try:
        state = task(return_state=True)
    except Exception:  # of Prefect's, whose server went away: what the function itself raises is in the state
        if problems:
            raise problems[0] from None
        if begun and not outcomes:
            raise
        return outcomes[0] if outcomes else _alone(name, function)
    if problems:
        raise problems[0]
    if not outcomes:
        state.result()
    return outcomes[0]


def _say_errors_once() -> None:
    """Keep Prefect from writing of a failed or stopped task what the run says at its end."""
    logger = logging.getLogger("prefect.task_runs")
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(
        ("Task run failed with state", "Finished in state Failed", "Crash detected!")
    )


def _patiently(function: Callable[[], Outcome]) -> Outcome:
    """Try again while another process, a `dvc repro` by hand, is at work; it is named once."""
    give_up, has_said = time.monotonic() + 60 * _minutes(), False
    while True:
        try:
            return function()
        except Busy as error:
            if time.monotonic() > give_up:
                raise
            if not has_said:
                print(f"Waiting: {error}", file=sys.stderr, flush=True)
                has_said = True
            time.sleep(_LOOK_SECONDS)


def _minutes() -> float:
    from pathlib import Path

    from regraft.core.params_file import load_params

    try:
        return load_params(Path("params.yaml")).nights.wait_minutes
    except RegraftError:
        return 0.0  # the next step says what is wrong with params.yaml


def give_memory_back() -> None:
    """Return freed memory to the system: the stages of a run share a process, and their peaks must not add up."""
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it, other C libraries do not
        trim(0)


def is_followed() -> bool:
    """Whether somebody may look at this run in the Prefect UI."""
    run = current_run()
    return run is not None and run.live.flow_run is not None


def publish(description: str, pages: dict[str, str], *, of_run: bool = False) -> None:
    """Show pages of a step where the run is followed.

    Args:
        description: stands under the title, in the list of pages too: the stage's name, or what a page says in short.
        pages: Markdown by key.
        of_run: whether they are about the run as a whole: these come first.
    """
    if run := current_run():
        for key, markdown in pages.items():
            run.publish(key, markdown, description, task_run=None if of_run else run.task_run)


def progress_of_run(percent: float, words: str) -> None:
    """Move the bar of the run, where it is followed."""
    if run := current_run():
        run.tell_progress(percent, words)
