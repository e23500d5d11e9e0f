"""build/features.arrow where it names rows of the store: what the stages that read it make of it."""

import shutil

import numpy as np
import pytest

from regraft.core.errors import Busy, RegraftError
from regraft.core.files import md5_of, sha256_of
from regraft.production.registry import Production
from regraft.store.folders import open_folder
from regraft.store.leases import store_in_use
from regraft.store.namespace import Namespace
from regraft.store.shards import as_array, as_keys
from regraft.store.upkeep import collect
from tasks import cache_features as caching
from tasks.cache_features import cache_features
from tasks.history import features_versions
from tasks.promote import challenge, force
from tasks.stage_inputs import open_features
from tasks.train_head import train_head
from tests.support.small_project import changed, quiet


@pytest.fixture
def params(project, small_params, monkeypatch):
    """Settings of a project whose features are named and not copied, as if it had many photos."""
    monkeypatch.setattr(caching, "_COPIED_ROWS", 71)
    cache_features.function(small_params, quiet)
    assert small_params.paths.features.stat().st_size < 20_000
    return small_params


def test_a_head_is_the_same_whether_its_features_are_copied_or_named(params):
    before = sha256_of(params.paths.head)
    params.paths.head.unlink()
    train_head.function(params, quiet)
    assert sha256_of(params.paths.head) == before


def test_rows_that_the_store_has_lost_are_computed_again_by_the_command_that_is_named(params):
    before = md5_of(params.paths.features)
    for folder in params.paths.store.glob("features-*"):
        shutil.rmtree(folder)
    with pytest.raises(RegraftError, match=r"72 of 72 rows .* missing .*`dvc repro -sf cache_features` computes"):
        train_head.function(params, quiet)
    cache_features.function(params, quiet)
    assert md5_of(params.paths.features) == before
    with open_features(params) as features:
        assert features.read(np.arange(72)).shape == (72, features.dim)


def remove_a_row(namespace: Namespace) -> None:
    keys = as_keys(np.concatenate([shard.keys for shard in namespace.shards]))[1:]
    old, values = list(namespace.shards), namespace.read(keys)
    namespace.write(as_array(keys), values, np.ones(len(keys), np.float32))
    for shard in old:
        namespace.remove(shard)


@pytest.mark.parametrize("lost", ["a row", "the store", "the shared store"])
def test_a_promotion_by_force_goes_on_without_features_that_are_lost_and_says_how_many(params, tmp_path, capsys, lost):
    folder = next(params.paths.store.glob("features-*"))
    if lost == "a row":
        remove_a_row(open_folder(params.paths.store, None, folder.name))
    elif lost == "the store":
        shutil.rmtree(folder)
    else:
        (tmp_path / "no folder").touch()
        params = changed(params, machine={"shared_store": f"{tmp_path}/no folder/store"})
    with pytest.raises(RegraftError):
        challenge(params, quiet)
    force(params, "it is needed tonight")
    missing = 1 if lost == "a row" else 72
    words = f"Of {missing} of 72 sampled photos the features were not in the store."
    assert (f"Warning: {words}" in capsys.readouterr().err) == bool(missing)
    reference, told = Production(params.paths.production).find_reference()
    assert reference
    assert (len(reference.rows), len(reference.features), told.endswith(words)) == (72, 72 - missing, bool(missing))


def test_rows_that_are_read_are_not_collected_nor_those_that_the_file_names(params, project):
    (project / "dvc.lock").write_text("stages: {cache_features: {outs: [{path: build/features.arrow, md5: abc}]}}")
    versions = features_versions(project, params.paths.features, keep=0)
    with open_features(params) as features:
        with pytest.raises(Busy):
            collect(params.paths.store, None, versions, really=True)
        assert len(features.digests) == 72
    for record in (params.paths.store / "uses").iterdir():
        if not record.name.startswith(md5_of(params.paths.features)):
            record.unlink()
    collect(params.paths.store, None, versions, really=True)
    with open_features(params) as features, store_in_use(params.paths.store, None):
        assert features.read(np.arange(72)).shape == (72, features.dim)
