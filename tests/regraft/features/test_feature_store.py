from dataclasses import replace

import pytest

from regraft.features.forward_passes import open_feature_store


@pytest.mark.parametrize(
    "change",
    [{"digest": "other graph"}, {"feature_dim": 640}, {"activation_shape": (2, 2, 112)}],
    ids=lambda change: next(iter(change)),
)
def test_another_backbone_has_a_store_of_its_own(trunk, tmp_path, change):
    ours, theirs = (open_feature_store(tmp_path, one) for one in (trunk, replace(trunk, **change)))
    assert (ours.features.folder, ours.activations.folder) != (theirs.features.folder, theirs.activations.folder)


def test_another_engine_has_a_store_of_its_own(trunk, batching, tmp_path):
    ours, theirs = (open_feature_store(tmp_path, one) for one in (trunk, batching))
    assert ours.features.folder != theirs.features.folder
