"""Kills of whole runs of the real stages: a handful of those that `make stress` causes."""

import pytest

from tests.stress import run_kills
from tests.stress.killed_project import make_project

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> run_kills.Kills:
    """Kills of a project in which everything ran once, undisturbed."""
    return run_kills.Kills(make_project(tmp_path_factory.mktemp("kills")), seed=3, api=None)


def test_after_a_kill_of_anything_the_next_run_ends_in_the_same_bytes(
    kills: run_kills.Kills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_kills, "KINDS", {"run": 1})
    tally = kills.run(1)
    assert (tally.problems, tally.kills) == ([], 1)


def test_another_byte_and_a_run_that_fails_are_noticed(kills: run_kills.Kills) -> None:
    kills.tally.problems, kills.random.choice = [], lambda runners: "flow"  # type: ignore[method-assign]
    kills.reference = kills.reference | {"models/model.onnx": "another"}
    kills._recover("nothing")
    assert [problem.split(" is ")[0] for problem in kills.tally.problems] == ["flow after nothing: models/model.onnx"]
    (kills.project.root / "params.yaml").write_text("seed: nothing\n")
    kills._expect_success(kills.project.start("flow"), "a run with damaged params")
    assert "a run with damaged params ended with 1" in kills.tally.problems[-1]
