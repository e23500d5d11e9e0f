"""Kill -9 of stages that fill one store, at random moments: a handful of the rounds that `make stress` plays."""

from dataclasses import replace

from tests.stress.kills import Rounds


def test_after_kills_at_any_moment_the_next_run_gives_what_an_undisturbed_one_does(make, undisturbed_run, tmp_path):
    tally = Rounds(make, tmp_path, *undisturbed_run, seed=0).run(6, flush_rows=4, on_kill=lambda done: None)
    assert (tally.problems, tally.differences, tally.leftover_after_gc) == ([], 0, 0)
    assert tally.kills >= 6
    assert tally.later_runs_completed > 0
    assert tally.several_writers > 0  # the seed is one whose first round has three


def test_one_wrong_value_in_a_store_would_be_noticed(undisturbed_run):
    project, reference = undisturbed_run
    name, rows = next(iter(reference.rows.items()))
    key, value = next(iter(rows.items()))
    other = replace(reference, rows=reference.rows | {name: rows | {key: value[:-1] + bytes([value[-1] ^ 1])}})
    assert (reference.compare(project.store), other.compare(project.store)) == (
        (reference.total, 0),
        (reference.total, 1),
    )
    assert reference.is_complete(project)
    assert not other.is_complete(project)
