import re

import pytest

from regraft.backbones.catalogue import CATALOGUE, choose_backbone
from regraft.backbones.description import describe, list_backbones
from regraft.config import BackboneChoice


def test_every_backbone_is_listed_with_its_licence():
    listed = list_backbones()
    assert all(re.search(rf"^{name} +\d+ pixels", listed, re.M) for name in [*CATALOGUE, "VGG16", "ConvNeXtTiny"])
    assert "CC BY (VGG, Oxford)" in listed


@pytest.fixture
def described(monkeypatch) -> str:
    """Lite0 at 64 pixels with random weights."""
    monkeypatch.setattr("regraft.backbones.description._SECONDS", 1e-9)
    choice = BackboneChoice(
        name="efficientnet_lite0",
        weights=None,
        preprocessing="auto",
        image_size=64,
        cut="auto",
        engine="onnxruntime",
    )
    return describe(choose_backbone(choice))


def test_a_backbone_is_described_by_what_it_costs_and_where_it_can_be_cut(described):
    assert re.search(r"^parameters +3,\d{3},\d{3} \(13\.7 MB\)$", described, re.M)
    assert "49 layers, epsilon 0.001" in described
    assert re.search(r"^speed here +[\d,.]+ images/s", described, re.M)
    assert re.search(r"^block6_add +2,560 +63\.\d%  <- auto$", described, re.M)
