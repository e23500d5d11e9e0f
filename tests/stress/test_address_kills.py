"""Kill -9 of workers that share production in a bucket: a handful of those that `make stress` makes."""

from pathlib import Path

import pytest

from tests.stress.address_kills import run


def test_nothing_that_a_worker_was_told_is_done_is_lost_or_done_twice_whoever_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = run(tmp_path, 2, 2, monkeypatch.setenv)
    assert tally.problems == []
    assert tally.rows + tally.promotions > 0
