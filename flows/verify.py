"""Verify: what nobody looks at while all goes well. The store, and whether production could be restored.

Once a week, by the deployment `verify-weekly`. What it finds wrong is an alarm; what the week brought is a message.
"""

from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from flows.prefect_server.events import announce
from flows.run import aside
from regraft.core.config import Params
from regraft.core.errors import RegraftError
from tasks.dvc_restore import prove_restore
from tasks.found_store import load_project
from tasks.history import features_versions, models_in_use
from tasks.project import enter_project
from tasks.runs import run_history
from tasks.step import Outcome, step


@aside
def verify(keep: int = 10, stale_days: float = 30) -> Outcome:
    """Check the store, remove what nothing needs of it, restore the production model, and sum up the week.

    Args:
        keep: How many versions of dvc.lock in git's history still count; what they need of the store stays.
        stale_days: Days without using the shared store after which another machine counts as gone.
    """
    root = enter_project()
    params = load_project(root)
    problems: list[str] = []
    said = [
        _tried("verify_store", lambda: _verify_store(params), problems),
        _tried("collect_garbage", lambda: _collect_garbage(params, keep, stale_days), problems),
        _tried("restore_production", lambda: prove_restore(root, params), problems),
    ]
    announce("regraft.digest", "\n".join([run_history.week(params), *(problems or said[2:])]))
    if problems:
        raise RegraftError(" ".join(problems))
    return Outcome("Verified", " ".join(filter(None, said)))


def _tried(name: str, work: Callable[[], str], problems: list[str]) -> str:
    """Do one part, whatever became of those before it."""
    try:
        return step(name, lambda: Outcome("Sound", work())).message
    except RegraftError as error:
        problems.append(str(error))
        return ""


def _verify_store(params: Params) -> str:
    from regraft.store.overview import verify as verify_rows

    if not (params.paths.store.is_dir() or params.machine.shared_store):
        return "There is no store yet."
    with redirect_stdout(StringIO()) as printed:
        verify_rows(params.paths.store, params.machine.shared_store)
    return f"Every row of the store is what was written ({len(printed.getvalue().splitlines())} namespaces)."


def _collect_garbage(params: Params, keep: int, stale_days: float) -> str:
    from regraft.store.facts import open_facts
    from regraft.store.upkeep import collect

    if not (params.paths.store.is_dir() or params.machine.shared_store):
        return ""
    versions = features_versions(Path(), params.paths.features, keep=keep)
    in_use = {*models_in_use(params.paths), open_facts(params).name}
    with redirect_stdout(StringIO()) as printed:
        shared = params.machine.shared_store
        collect(params.paths.store, shared, versions, in_use=in_use, stale_days=stale_days, really=True)
    return "Of the store " + printed.getvalue().strip().splitlines()[-1]
