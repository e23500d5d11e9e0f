"""How often test photos were looked at."""

from pathlib import Path

import numpy as np

from regraft.production.logs import Look, count_looks, sketch_of, verdict_log

DIGESTS = [f"{number:064x}" for number in np.random.default_rng(0).integers(0, 2**62, 400).tolist()]
DIGESTS = [digest[::-1] for digest in DIGESTS]


def look(challenger: str, digests: list[str] = DIGESTS) -> Look:
    return Look("2026-11-26T03:00:00+00:00", "Undecided", challenger * 64, None, 300, 5, 4, sketch_of(digests))


def test_models_are_counted_and_not_nights(tmp_path: Path) -> None:
    for each in "abba":
        verdict_log(tmp_path).append(look(each))
    looks = verdict_log(tmp_path).read()[0]
    assert len(looks) == 4
    assert count_looks(looks, sketch_of(DIGESTS), "b" * 64) == 1
    assert count_looks(looks, sketch_of(DIGESTS), "c" * 64) == 2


def test_a_test_set_that_grew_a_little_is_the_same_and_another_one_is_not() -> None:
    looks = [look("a", DIGESTS[:300])]
    assert count_looks(looks, sketch_of(DIGESTS[:340]), "b" * 64) == 1
    assert count_looks(looks, sketch_of(DIGESTS[300:]), "b" * 64) == 0


def test_half_a_line_of_a_kill_and_lines_of_others_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    verdict_log(tmp_path).append(look("a"))
    path.write_bytes(path.read_bytes() + b'{"at": "2026\nnonsense\n{"at":')
    verdict_log(tmp_path).append(look("b"))
    assert [each.challenger[0] for each in verdict_log(tmp_path).read()[0]] == ["a", "b"]
