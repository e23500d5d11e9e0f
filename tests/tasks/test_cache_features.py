import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from regraft.core.errors import RegraftError
from regraft.core.files import read_json, sha256_of
from regraft.features.extraction import Recomputing
from tasks.cache_features import cache_features, former_features, tell_or_stop
from tests.support.small_project import changed, empty_store, quiet

AGAIN = Recomputing(1200, 90.0, "that was with one engine, and this is another")
PARAMS = cast(Any, SimpleNamespace(paths=SimpleNamespace(features=Path("build/features.arrow"))))
LOCK = """stages:
  cache_features:
    outs:
      - {path: build/features.arrow, md5: 0123456789abcdef0123456789abcdef, size: 1}
"""


def test_a_second_run_computes_nothing_and_writes_the_same_file(project, small_params):
    before = sha256_of(project / "build" / "features.arrow")
    cache_features.function(small_params, quiet)
    receipt = read_json(project / "reports" / "features.json")
    assert (receipt["from_store"], receipt["computed"]) == (72, 0)
    assert sha256_of(project / "build" / "features.arrow") == before


def test_a_deleted_store_is_filled_again_with_the_same_features(project, small_params, capsys):
    before = (project / "build" / "features.arrow").read_bytes()
    shutil.rmtree(project / "build" / "store")
    cache_features.function(small_params, quiet)
    assert (project / "build" / "features.arrow").read_bytes() == before
    receipt = read_json(project / "reports" / "features.json")
    said = f"{receipt['computed']} views of photos that were computed before are computed again: fine-tuning reads"
    assert (receipt["from_features_file"], said in capsys.readouterr().err) == (72, True)


@pytest.mark.parametrize("settings", [{"mode": "off"}, {"layers": "all"}])
def test_activations_are_kept_only_if_fine_tuning_reads_them(project, small_params, settings):
    empty_store(project)
    cache_features.function(changed(small_params, fine_tune=settings), quiet)
    assert list((project / "build" / "store").glob("activations-*/*.arrow")) == []


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
        RegraftError, match=r"computed again: .*Nothing is computed now.*machine.allow_recompute is false"
    ):
        tell_or_stop(AGAIN, may_go_on=False)
