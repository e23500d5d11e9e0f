"""The steps of a run that are not stages: recording the data before them, and production after them."""

import sys

from flows.approval import wait_for_a_person
from flows.run import run
from regraft.core.config import Params
from regraft.core.errors import Damaged, RegraftError
from regraft.core.files import read_json
from regraft.core.params_file import load_params
from regraft.production.gate.verdict import FILE, Verdict
from regraft.production.records import Records
from regraft.reports.pages import pages_of
from regraft.reports.sources import sources_of
from tasks import dvc_seam, step
from tasks import promote as gate
from tasks.after_promotion import after_promotion
from tasks.disk_space import DATA, check_room
from tasks.found_store import load_project
from tasks.progress import run_progress
from tasks.project import enter_project
from tasks.report import refresh_report
from tasks.step import Outcome

# By the name of a verdict; grey in the Prefect UI is a run that did all it should and let nothing in.
_TYPES = {"Refused": "CANCELLED"}


def record_data() -> None:
    """Let DVC record the data folder as it is now, so that the run's inputs can be brought back later."""

    def record() -> Outcome:
        root = enter_project()
        params = load_params(root / "params.yaml")
        check_room(root, params, DATA)
        outcome = dvc_seam.record_data(root, params.paths.raw)
        return Outcome(outcome, f"data: {outcome.lower()}")

    step.step("record_data", record)


def promote_model(*, is_asked: bool = False) -> Outcome:
    """Let the gate judge the new model; the outcome is named as its verdict is.

    Promoted, Promoted with warnings, Undecided, Waiting for approval, Refused, Already in production; and Nothing new,
    where the gate says of the same model, word for word, what it said before: nobody has to be told twice.

    Args:
        is_asked: whether a person asks for the verdict, who is told it in any case.
    """
    found: list[Verdict] = []

    def promote() -> Outcome:
        params = load_project(enter_project())
        before = _said_before(params)
        with run_progress("promote_model", step.progress_of_run) as progress:
            verdict = gate.challenge(params, progress)
        warnings = after_promotion(params)  # whatever the verdict: a run before may have been killed there
        found.append(verdict)
        if verdict.name != "Already in production":
            step.publish(verdict.words, pages_of("promote_model", sources_of(params)), of_run=True)
        about = verdict.figures.get("about") or {}
        if not is_asked and not verdict.is_accepted and (about.get("model"), verdict.words) == before:
            return Outcome("Nothing new", " ".join([f"the gate says what it said before: {verdict.words}", *warnings]))
        name = "Promoted with warnings" if warnings and verdict.name == "Promoted" else verdict.name
        return Outcome(name, " ".join([verdict.words, *warnings]), _TYPES.get(verdict.name, "COMPLETED"))

    outcome = step.step("promote_model", promote)
    return wait_for_a_person(found[-1]) if outcome.name == "Waiting for approval" else outcome


def _said_before(params: Params) -> tuple[str, str] | None:
    """Return which model the gate judged last, and in which words; nothing as long as production is damaged."""
    if Records(params.paths.production).standing().problem:
        return None
    try:
        gate_json = read_json(params.paths.reports / FILE, "about", "words")
        return gate_json["about"]["model"], gate_json["words"]
    except (FileNotFoundError, Damaged, KeyError, TypeError):
        return None


def write_report() -> None:
    """Write reports/report.html if something that it shows has changed: last, so that it has the gate's verdict.

    Where it cannot be written the run ends as it would: `regraft report` makes the page at any time.
    """

    def write() -> Outcome:
        enter_project()
        try:
            return Outcome("Written" if refresh_report() else "Up to date")
        except (RegraftError, OSError) as error:  # the gate has spoken, and production may have changed
            words = f"report.html is still that of a run before: {error}"
            print(words, file=sys.stderr, flush=True)
            return Outcome("Not written", words)

    step.step("write_report", write)


@run
def promote() -> Outcome:
    """Let models/model.onnx into production if the gate accepts it, without bringing any stage up to date first."""
    verdict = promote_model(is_asked=True)
    write_report()
    return verdict
