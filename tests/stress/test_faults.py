"""Single faults of the store: a few of those that `make stress` causes."""

from itertools import islice

import pytest

from tests.stress.single_faults import Scene, faults_of_files


@pytest.fixture
def scene(make, undisturbed_run, tmp_path) -> Scene:
    """Where faults happen, with a full store to copy."""
    return Scene(make, tmp_path, *undisturbed_run)


def test_no_damaged_shard_gives_a_wrong_value_and_the_next_run_gives_all_of_them(scene):
    for outcome in islice(faults_of_files(scene, quick=True), 2):
        assert (outcome.wrong, outcome.problems) == (0, [])


def test_a_fault_that_nobody_is_told_of_is_a_problem(scene):
    outcome = scene.observe("nothing at all", scene.project("sound"), status=1, said="is damaged")
    assert [problem.split(".")[0] for problem in outcome.problems] == [
        "nothing at all: expected exit status 1",
        "nothing at all: expected a message like 'is damaged'",
    ]
