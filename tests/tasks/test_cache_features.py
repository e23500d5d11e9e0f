import shutil

import pytest

from regraft.core.files import read_json, sha256_of
from tasks.cache_features import cache_features
from tests.support.small_project import changed, empty_store, quiet

KEYS = [
    "images",
    "views",
    "rows",
    "from_store",
    "computed",
    "seconds",
    "images_per_second",
    "seconds_saved",
    "store_bytes",
    "engine",
    "from_features_file",
    "computed_again",
    "photos_fetched",
    "bytes_fetched",
]


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
