"""The fuzzer itself: it passes where all promises are kept, and fails where one is broken."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.stress import fuzz
from tests.support.hostile_files import choose_files
from tests.support.limited import Took, limit_of, run_limited

# Whatever a file holds, it is a good PNG of 9 x 9 pixels to a run with this line in it.
_ACCEPT_ALL = """
from regraft.photos.decoder import ImageFacts
from regraft.photos.inspectors import Inspectors
Inspectors.inspect = lambda *_: ImageFacts("PNG", 9, 9, "RGB", 8, 1, 1, 0.5, 0.1, 9.0, 5.0)
"""


def patched(stage: str) -> list[str]:
    """The command of a stage that accepts whatever it sees."""
    return [sys.executable, "-c", f"{_ACCEPT_ALL}\nfrom tasks.{stage} import {stage}\n{stage}.run()"]


def test_the_first_stages_keep_their_promises_on_hostile_files():
    result = fuzz.measure(fuzz.REAL_PHOTOS, files=60, seed=0)
    assert result["problems"] == []
    assert result["verdicts"]["use"] > 25
    assert result["verdicts"]["quarantine"] >= 5  # else the damage is too small, or too large, to tell
    assert result["MB together of cache_features"] > 100


def test_accepted_files_that_cannot_be_decoded_end_the_command_with_their_names(monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "STAGES", fuzz.STAGES[:2])  # the third takes a minute, and ends with the same files
    monkeypatch.setattr(fuzz.measure, "__kwdefaults__", {"command": patched})
    monkeypatch.setattr(sys, "argv", ["fuzz", "--files", "120"])
    with pytest.raises(SystemExit) as ended:
        fuzz.main()
    said = str(ended.value)
    assert "accepted files have no features" in said
    assert "was accepted: UnidentifiedImageError" in said
    assert "is to have the verdict quarantine, and has use" in said
    assert "limit: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("took", "problem"),
    [
        (Took(status=0), []),
        (Took(status=None, seconds=99), ["preprocess hung: it had not ended after 99 s"]),
        (Took(status=137, said="Killed"), ["preprocess ended with status 137: Killed"]),
        (Took(status=0, together_bytes=fuzz.LIMIT + 1), ["preprocess and its inspectors took 4000000001 bytes"]),
    ],
)
def test_a_run_that_ends_hangs_or_takes_too_much_breaks_a_promise(took, problem):
    found = list(fuzz._broken_by_the_run("preprocess", took))
    assert len(found) == len(problem)
    assert all(said.startswith(expected) for said, expected in zip(found, problem, strict=True))


def test_verdicts_that_break_a_promise_are_named():
    manifest = pd.DataFrame({"path": ["a.png", "b.png"], "verdict": ["quarantine"] * 2, "reason": ["broken", None]})
    found = list(fuzz._broken_verdicts(manifest, {"a.png": "use", "c.png": "use"}))
    assert found == [
        "b.png is refused without a reason",
        "a.png is to have the verdict use, and has quarantine: broken",
        "c.png has no verdict",
    ]


def test_a_command_is_kept_below_the_limit_and_its_memory_is_seen(tmp_path: Path):
    take = "import sys, time; taken = bytes([1]) * int(sys.argv[1]); time.sleep(1)"
    with limit_of(300 * 10**6) as (_, before):
        small, large = (
            run_limited([sys.executable, "-c", take, size], tmp_path, before=before, patience=60)
            for size in ("100000000", "900000000")
        )
    assert small.status == 0
    assert 100_000_000 < small.run_bytes < 300_000_000
    assert large.status


def test_a_command_that_hangs_is_ended(tmp_path: Path):
    took = run_limited([sys.executable, "-c", "input()"], tmp_path, before=["sh", "-c", "sleep 60"], patience=1)
    assert took.status is None


def test_files_are_the_same_in_every_run_of_one_seed():
    first, second = (list(choose_files(fuzz.REAL_PHOTOS, 90, 10**8, np.random.default_rng(5))) for _ in range(2))
    assert [contents for _, contents, _ in first] == [contents for _, contents, _ in second]
