"""Where the features of the run before are, and what is said of rows that are computed again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from regraft.core.errors import RegraftError
from regraft.features.recomputing import Recomputing
from tasks.former_features import former_features, tell_or_stop

AGAIN = Recomputing(1200, 90.0, "that was with one engine, and this is another")
PARAMS = cast(Any, SimpleNamespace(paths=SimpleNamespace(features=Path("build/features.arrow"))))
LOCK = """stages:
  cache_features:
    outs:
      - {path: build/features.arrow, md5: 0123456789abcdef0123456789abcdef, size: 1}
"""


def test_the_features_of_the_run_before_are_found_in_the_cache_of_dvc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cached = tmp_path / ".dvc/cache/files/md5/01/23456789abcdef0123456789abcdef"
    cached.parent.mkdir(parents=True)
    assert former_features(PARAMS) == []
    Path("dvc.lock").write_text(LOCK)
    assert former_features(PARAMS) == []
    cached.touch()
    assert former_features(PARAMS) == [cached]
    PARAMS.paths.features.parent.mkdir()
    PARAMS.paths.features.touch()
    assert former_features(PARAMS) == [PARAMS.paths.features, cached]


def test_what_is_computed_again_is_said_with_its_cost(capsys):
    tell_or_stop(AGAIN, may_go_on=True)
    said = "1,200 views of photos that were computed before, which took 1.5 minutes, are computed again: that was with"
    assert said in capsys.readouterr().err


def test_where_nothing_may_be_computed_again_the_run_stops_and_says_what_to_do():
    with pytest.raises(
        RegraftError, match=r"computed again: .*Nothing is computed now.*allow_recompute in params\.yaml"
    ):
        tell_or_stop(AGAIN, may_go_on=False)
