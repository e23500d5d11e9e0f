"""The frame around every flow: one run at a time, none left for dead, and an end that says what happened.

A flow's function says what is done, in which order. What every run needs stands here, once: it waits for another run of
this folder, tells what became of runs that died, turns errors and signals into a state with a sentence, and leaves a
receipt and a line of history. With a Prefect server the run is a flow run there; without one the same function runs in
this process, and no server is started for it.
"""

import atexit
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

import prefect
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import TerminationSignal

from flows.after_run import after_run, commit_run
from flows.prefect_server import connection as server
from flows.prefect_server.dead_runs import beating, tell_of_dead_runs
from flows.prefect_server.events import this_project
from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.params_file import load_params
from tasks.dvc_seam import enter_dvc_project
from tasks.project import disk_in_words
from tasks.runs.current_run import CurrentRun, RunRecord, current_run, enter_run, leave_run, new_run_id
from tasks.runs.live_runs import alive, forget, new_live_run, only_run
from tasks.runs.prefect_api import Api, named_api
from tasks.step import Outcome
from tasks.stopping import status_of, stopped_words, terminable, undisturbed

_REPEATED = ("Finished in state Failed", "Crash detected!")  # of Prefect, which calls Ctrl-C a crash
STATUS = {"Refused": 2, "Failed": 1}  # exit status by the name of the state; all others: 0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended, for the process that it ran in."""

    outcome: Outcome
    status: int


def run(function: Callable[..., Outcome | None]) -> "prefect.Flow[..., Any]":
    """Make a flow of a function that returns how the run ended; None is Completed."""
    return _flow(function, writes_history=True)


def aside(function: Callable[..., Outcome | None]) -> "prefect.Flow[..., Any]":
    """The same for what retrains nothing: it leaves no receipt and no line of history."""
    return _flow(function, writes_history=False)


def _flow(function: Callable[..., Outcome | None], *, writes_history: bool) -> "prefect.Flow[..., Any]":
    @wraps(function)
    def framed(*arguments: Any, **named: Any) -> State:
        parameters = signature(function).bind(*arguments, **named)
        parameters.apply_defaults()
        outcome = _run(function, parameters.arguments, writes_history).outcome
        return State(type=StateType(outcome.type), name=outcome.name, message=outcome.message)

    return prefect.flow(framed)


def start(flow: "prefect.Flow[..., Any]", **parameters: Any) -> NoReturn:
    """Run a flow, report to the server that is there, if there is one, and end the process.

    Exit status: 0 done, 1 stopped with a message, 2 the gate refused the model, 130 or 143 stopped by a signal.
    """
    with server.connected() as is_there:
        if is_there:
            _say_errors_once()
            with prefect.tags(*_tags()), _whatever_prefect_does():
                flow(return_state=True, **parameters)
        if not _ended:
            flow.fn(**parameters)
    leave(_ended[-1])


def leave(ended: Ended) -> NoReturn:
    """Say how the run ended, and end the process."""
    outcome = ended.outcome
    said = outcome.message or "every stage is up to date"
    words = f"\n{said}" if said.startswith(f"{outcome.name}:") else f"\n{outcome.name}: {said}"
    print(words, flush=True, file=sys.stderr if ended.status not in (0, 2) else sys.stdout)
    # Prefect's handlers send the last logs. All that Python would do after them is take its modules apart, which lasts
    # two seconds for TensorFlow's.
    if current_run() is None:
        atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(ended.status)


@contextmanager
def without_lock() -> Iterator[None]:
    """Let other runs of this folder work while this one waits for a person; one that is stopped then waits for none."""
    params, lock = _locks.pop()
    lock.__exit__(None, None, None)
    yield
    _locks.append((params, _work_alone(params)))


_ended: list[Ended] = []
_locks: list[tuple[Params, Any]] = []


def _run(function: Callable[..., Outcome | None], parameters: dict[str, Any], writes_history: bool) -> Ended:
    started = datetime.now(UTC)
    api, flow_run = named_api(), _flow_run_id()
    live = new_live_run(new_run_id(started), started, _started_by(), flow_run)
    enter_dvc_project()
    here = CurrentRun(live, api if flow_run else None)
    enter_run(here)
    with terminable(), alive(live), beating(here):
        params, ended = _work(function, parameters, api)
        _ended[:] = [ended]
        if params:
            name, words, stages = ended.outcome.name, ended.outcome.message, tuple(here.stages)
            times = (started, datetime.now(UTC))
            record = RunRecord(live.run, *times, live.started_by, name, words, stages, _url(flow_run))
            with undisturbed():
                after_run(params, record, ended.outcome, writes_history=writes_history)
            if parameters.get("commit"):
                ended = Ended(_commit(params, record, ended.outcome), ended.status)
                _ended[:] = [ended]
        with undisturbed():
            _end(ended)
    return ended


def _work(
    function: Callable[..., Outcome | None], parameters: dict[str, Any], api: Api | None
) -> tuple[Params | None, Ended]:
    """Wait until nobody else works here, and do it; whatever happens, it ends with a sentence."""
    params = None
    try:
        params = load_params(Path("params.yaml"))
        _locks[:] = [(params, _work_alone(params))]
        tell_of_dead_runs(params, api)
        with disk_in_words():
            outcome = function(**parameters)
        outcome = outcome or Outcome("Completed", "every stage is up to date")
        return params, Ended(outcome, STATUS.get(outcome.name, 0))
    except RegraftError as error:
        return params, Ended(Outcome("Failed", str(error), "FAILED"), 1)
    except (KeyboardInterrupt, TerminationSignal) as stop:
        return params, Ended(Outcome("Cancelled", stopped_words(), "CANCELLED"), status_of(stop))
    except Exception as error:
        traceback.print_exc()
        return params, Ended(Outcome("Failed", _defect(error), "FAILED"), 1)


def _commit(params: Params, record: RunRecord, outcome: Outcome) -> Outcome:
    try:
        return commit_run(params, record, outcome)
    except (KeyboardInterrupt, TerminationSignal):
        print("The commit or the push was cut off. The next run with --commit catches up.", file=sys.stderr)
        return outcome


@contextmanager
def _whatever_prefect_does() -> Iterator[None]:
    """Let no error of Prefect's keep a run from its work, or from its end: one of ours has become the run's state."""
    try:
        yield
    except Exception as error:
        print(f"The Prefect server does not follow this run: {error}", file=sys.stderr)


def _tags() -> list[str]:
    """What automations know our runs by; without prefect.yaml there are none that could look."""
    try:
        return [this_project().tag]
    except RegraftError as error:
        print(f"No alarm looks at this run: {error}", file=sys.stderr)
        return []


def _say_errors_once() -> None:
    """Keep Prefect's console from repeating, for the task and for the flow, the sentence that the run ends with."""
    for handler in logging.getLogger().handlers:  # Prefect's console; what goes to the server has handlers of its own
        handler.addFilter(lambda record: not record.getMessage().startswith(_REPEATED))


def _end(ended: Ended) -> None:
    """Let the next run work; where the server went away, leave it to the next run to tell it of this end."""
    run = current_run()
    assert run
    while _locks:
        _locks.pop()[1].__exit__(None, None, None)
    if run.live.flow_run is None:
        forget(run.live.run)
    elif not run.reports:
        print(
            "The Prefect server does not answer. What it was not told of this run, the next run tells it.",
            file=sys.stderr,
        )
        # Prefect's own client would try for minutes. A worker takes any other status for a crash.
        leave(Ended(ended.outcome, 0 if _is_of_worker() else ended.status))
    leave_run()


def _work_alone(params: Params) -> Any:
    run = current_run()
    assert run
    lock = only_run(run.live, params.nights.wait_minutes, lambda words: print(words, file=sys.stderr, flush=True))
    lock.__enter__()
    return lock


def _flow_run_id() -> str | None:
    return str(prefect.runtime.flow_run.id) if prefect.runtime.flow_run.id else None


def _started_by() -> str:
    return str(prefect.runtime.deployment.name) if prefect.runtime.deployment.id else "hand"


def _is_of_worker() -> bool:
    return bool(os.environ.get("PREFECT__FLOW_RUN_ID"))


def _url(flow_run: str | None) -> str | None:
    return prefect.runtime.flow_run.ui_url if flow_run else None


def _defect(error: Exception) -> str:
    return (
        f"{type(error).__name__}: {error}. That is no message of Regraft's own: the lines before it say where it "
        f"happened. What was finished before is kept."
    )
