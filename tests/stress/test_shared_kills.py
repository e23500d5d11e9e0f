"""Kill -9 of machines that fill one store in S3: two of the kills that `python -m tests.stress.shared_kills` makes."""

from tests.stress.shared_kills import play


def test_after_kills_of_machines_that_share_a_store_no_row_is_wrong_or_lost(tmp_path):
    tally = play(2, tmp_path, late_seconds=0.5)
    assert (tally.wrong, tally.failed, tally.lost) == (0, 0, 0)
    assert tally.rows_compared > 0
    assert tally.calls["500"] + tally.calls["503"] + tally.calls["no answer"] > 0
