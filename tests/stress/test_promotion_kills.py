"""Kill -9 of changes of production under a reader's eyes: a handful of those that `make stress` makes."""

from pathlib import Path

from tests.stress.promotion_kills import run


def test_a_reader_never_finds_half_a_model_nor_none_whoever_is_killed(tmp_path: Path) -> None:
    tally = run(tmp_path / "models" / "production", 3)
    assert (tally.problems, tally.missing, tally.damaged) == ([], 0, 0)
    assert tally.reads > 50
