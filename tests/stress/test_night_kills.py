"""What `tests.stress.night_kills` rests on: where a run stands still, and which state tells the truth."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.stress.night_rounds import Followed, Round, right_states, table
from tests.support import step_hook


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as it is in a project."""
    (tmp_path / ".dvc" / "tmp" / "regraft-held").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "step_hook", step_hook)
    return importlib.import_module("tests.stress.kill_points")


def test_a_run_stands_still_at_every_place_and_change_that_was_ordered(
    points: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def go_on(seconds: float) -> None:
        seen.append(json.loads((points.FOLDER / "held.json").read_text()))
        (points.FOLDER / "held.json").unlink()

    monkeypatch.setattr(points.time, "sleep", go_on)
    hold = points.Hold([{"where": "preprocess", "change": 2}, {"where": "after evaluate", "change": 0}])
    for where in ("validate_data", "preprocess", "train_head", "after evaluate", "end"):
        hold.enter(where)
        hold.count()
    assert [(held["where"], held["order"]) for held in seen] == [("train_head", 0), ("after evaluate", 1)]


@pytest.mark.parametrize(
    ("struck", "state", "is_right"),
    [
        (("flow", "train_head"), "Crashed", True),
        (("flow", "train_head"), "Running", False),
        (("flow", "end"), "Promoted", True),
        (("worker", "train_head"), "Promoted", True),
        (("worker", "train_head"), "Crashed", False),
        (("flow TERM", "train_head"), "Cancelled", True),
        (("flow TERM", "train_head"), "Crashed", False),
    ],
)
def test_a_state_tells_the_truth_of_what_was_killed(struck: tuple[str, str], state: str, is_right: bool) -> None:
    assert (state in right_states(Followed("run", struck=[struck]))) == is_right


def test_the_table_tells_the_longest_time_to_the_state() -> None:
    slow = Followed("1", since=10.0, changed=35.0, state="Crashed", struck=[("all", "evaluate")])
    fast = Followed("2", since=10.0, changed=11.0, state="Crashed", struck=[("all", "evaluate")])
    rounds = [Round("all", "evaluate", "evaluate", True, "Promoted", followed=each) for each in (slow, fast)]
    rounds[1].problems.append("another model")
    assert table(rounds).splitlines()[-1] == "| all | evaluate | 2 | 2 | 1 | Crashed 2 | 25 |"
