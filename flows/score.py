"""Score: what the model in production says of photos without labels, into a table; what is new alone is computed.

Once a day, by the deployment `score-daily`. If the photos are not what the model was trained on, that is an alarm.

    regraft score       the same by hand
"""

from datetime import UTC, datetime

from flows.prefect_server.events import announce
from flows.run import aside
from regraft.core.errors import some
from tasks import step
from tasks.found_store import load_project
from tasks.progress import run_progress
from tasks.project import enter_project
from tasks.score_photos import outcome_of, score_photos
from tasks.stage_limits import within_hours
from tasks.step import Outcome


@aside
def score() -> Outcome:
    """Score the photos of `score.photos` in params.yaml that are new, and say whether they have drifted."""

    def work() -> Outcome:
        params = load_project(enter_project())
        limit = within_hours("score_photos", params.nights.stage_hours)
        with limit, run_progress("score_photos", step.progress_of_run) as progress:
            said = score_photos(params, progress, datetime.now(UTC))
        step.publish(said.words, dict(said.pages), of_run=True)
        if said.warnings:
            announce("regraft.drift", f"The photos in {params.score.photos} drift: {some(list(said.warnings))}.")
        return outcome_of(said)

    return step.step("score_photos", work)
