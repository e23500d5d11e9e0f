"""The flow around scoring: how a run ends by what was found, and whom it tells."""

from pathlib import Path

import pytest

from flows import score as flow
from flows.nothing_new import end_scoring_early
from regraft.production.run_history import read_rows
from tasks.runs.live_runs import known_runs
from tasks.score_photos import Said

WARNED = Said("2 of 9 photos are new.", ("novel: 40% of 9 photos",), pages=(("scores", "# What was scored"),))


@pytest.fixture(autouse=True)
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project as it comes: without a model, and with nothing to score."""
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml", "prefect.yaml"):
        (tmp_path / name).write_text((root / name).read_text())
    (tmp_path / ".dvc").mkdir()
    return tmp_path


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Events that the server was told of."""
    told: list[str] = []
    monkeypatch.setattr(flow, "announce", lambda event, words: told.append(f"{event}: {words}"))
    return told


@pytest.mark.parametrize(
    ("found", "name", "events"),
    [
        (WARNED, "Scored with warnings", ["regraft.drift: The photos in None drift: novel: 40% of 9 photos."]),
        (Said("9 of 9 photos are new."), "Scored", []),
        (Said("all 9 files", is_new=False), "Nothing to score", []),
    ],
)
def test_a_run_is_named_by_what_was_found_and_drift_is_an_alarm(monkeypatch, told, found, name, events) -> None:
    monkeypatch.setattr(flow, "score_photos", lambda params, progress, at: found)
    state = flow.score.fn()
    assert (state.type.value, state.name, state.message) == ("COMPLETED", name, found.words)
    assert told == events


def test_without_a_model_in_production_a_run_fails_and_says_what_to_do(project: Path) -> None:
    (project / "incoming").mkdir()
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("  photos:       ", "  photos: incoming "))
    assert end_scoring_early(project) is None
    state = flow.score.fn()
    assert (state.type.value, state.message[:29]) == ("FAILED", "no model is in production: th")


def test_a_run_with_nothing_to_score_ends_before_prefect_and_leaves_no_line_of_history(project: Path) -> None:
    outcome = end_scoring_early(project)
    assert outcome
    assert (outcome.name, "score.photos in params.yaml is null" in outcome.message) == ("Nothing to score", True)
    assert (read_rows(project / "models" / "production"), known_runs()) == ([], [])
