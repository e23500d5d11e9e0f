"""When a run has ended: receipt, history, commit, and what the Prefect UI shows of it.

Nothing here may undo a run that is done: what goes wrong is said, and the rest is done all the same.
"""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from flows.prefect_server.dead_runs import ending_of, send_ending
from flows.prefect_server.events import announce
from regraft.core.config import Params
from regraft.core.errors import RegraftError
from tasks.base_renewal import ask_if_gate_refused
from tasks.runs.current_run import RunRecord, current_run
from tasks.runs.live_runs import save
from tasks.runs.prefect_api import ServerAway
from tasks.step import Outcome

if TYPE_CHECKING:
    from regraft.production.run_history import Row


def after_run(params: Params, record: RunRecord, outcome: Outcome, *, writes_history: bool = True) -> None:
    """Write down what is known of a run, and tell the server."""
    run = current_run()
    assert run
    row = _write_down(params, record) if writes_history else None
    with _said("the request for a new base"):
        # After the snapshot, which has what this run was made from.
        if sentence := ask_if_gate_refused(params):
            print(sentence, flush=True)
    if run.live.flow_run is None:
        return
    run.end_progress()
    if not any(stage.name == "promote_model" and stage.outcome == record.name for stage in record.stages):
        from regraft.reports.page import cell

        page = "\n\n".join([f"# {record.name}", *map(cell, record.words.splitlines())])
        run.publish("verdict", page, record.words)  # else the gate's page says it
    if row and row.drift_warned and any(stage.outcome == "Ran" for stage in record.stages):
        announce("regraft.drift", _drift(row))
    if writes_history:
        from tasks.runs.run_history import trend

        with _said("the trend"):
            # Beside the last task's pages, so that what the run came to stands alone at the top.
            run.publish("trend", trend(params), "accuracy, photos and verdicts of all runs", task_run=run.task_run)
    ending = ending_of(outcome.type, outcome.name, outcome.message, *_label(record, row))
    run.live = replace(run.live, ending=ending)
    with _said("what the server is to be told of this run"):
        save(run.live)
    try:
        if run.api:
            send_ending(run.api, run.live, is_over=False)
            run.live = replace(run.live, artifacts=[])
            with _said("what the server was told of this run"):
                save(run.live)
    except ServerAway:
        pass  # whoever comes next tells it


def commit_run(params: Params, record: RunRecord, outcome: Outcome) -> Outcome:
    """Commit what a run left for git, and push; after all else, because a push may take hours and be cut off.

    Returns:
        How the run ended, with what could not be committed or pushed.
    """
    from tasks.runs import remotes

    warnings = []
    with _said("the commit"):
        for sentence in remotes.commit_and_push(params, record, params.nights.branch):
            print(sentence, flush=True)
            warnings += [sentence] if sentence.startswith(("Warning", "Nothing was committed")) else []
    if not warnings:
        return outcome
    name = "Promoted with warnings" if outcome.name == "Promoted" else outcome.name
    return replace(outcome, name=name, message=" ".join([outcome.message, *warnings]).strip())


def _write_down(params: Params, record: RunRecord) -> "Row | None":
    from tasks.runs import receipts, run_history

    with _said("the receipt"):
        receipts.write_receipt(params, record)
    with _said("the line of history"):
        return run_history.add_to_history(params, record)
    return None


def _drift(row: "Row") -> str:
    return (
        f"The photos drift: {row.drift_of} is {row.drift:.1f} times its limit, in a run with {row.new or 0} new of "
        f"{row.photos} photos. It ended in {row.name}."
    )


def _label(record: RunRecord, row: "Row | None") -> tuple[str, list[str]]:
    """The name and the tags of a run, as they stand in the list of runs: when, what, how good, what came and went."""
    words = [f"{record.started:%Y-%m-%d}", record.name.lower()]
    if row is None:
        return " ".join(words), []
    if record.name in ("Failed", "Cancelled") and record.stages:
        words.append(f"in {record.stages[-1].name}")
    elif row.accuracy is not None:
        words.append(f"{'' if row.is_in_production else 'candidate '}{row.accuracy:.3f}")
    if moved := [f"{sign}{count}" for sign, count in (("+", row.new), ("-", row.gone)) if count]:
        words.append(f"({' '.join(moved)} photo{'' if moved in (['+1'], ['-1']) else 's'})")
    tags = [f"data:{row.data_version[:8]}"] if row.data_version else []
    return " ".join(words), [*tags, *([f"git:{row.revision}"] if row.revision else [])]


@contextmanager
def _said(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a defect too: the run is done, and production may have changed
        if not isinstance(error, RegraftError | OSError):
            traceback.print_exc()
        print(f"{what} could not be written: {error}", file=sys.stderr, flush=True)
