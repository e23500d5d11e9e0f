"""The name of a run in the list of runs."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flows.after_run import _label
from regraft.production.run_history import Row
from tasks.runs.current_run import RunRecord

NIGHT = datetime(2026, 12, 3, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("verdict", "facts", "name"),
    [
        ("Promoted", {"champion": "new", "new": 1}, "promoted 0.945 (+1 photo)"),
        ("Undecided", {"champion": "old", "new": 1, "gone": 40}, "undecided candidate 0.945 (+1 -40 photos)"),
        ("Refused", {"champion": None, "new": 12, "gone": 1}, "refused candidate 0.945 (+12 -1 photos)"),
        ("Undecided", {"champion": "new", "gone": 40}, "undecided 0.945 (-40 photos)"),  # promoted all the same
        ("Nothing new", {"champion": "new", "new": 0, "gone": 0}, "nothing new 0.945"),
    ],
)
def test_it_says_whose_accuracy_it_has_and_how_many_photos_came_and_went(
    verdict: str, facts: dict[str, Any], name: str
) -> None:
    record = RunRecord("run", NIGHT, NIGHT, "hand", verdict, "", ())
    row = Row("run", NIGHT, verdict, accuracy=0.945, model="new", **facts)
    assert _label(record, row)[0] == f"2026-12-03 {name}"
