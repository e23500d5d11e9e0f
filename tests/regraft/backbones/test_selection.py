import re

import numpy as np
import pytest

from regraft.backbones.catalogue import CATALOGUE, choose_backbone
from regraft.backbones.selection import Compared, describe, list_backbones, rank, recommendation
from regraft.core.config import BackboneChoice


def compared(name: str, accuracy: float, milliseconds: float, images: int = 100, shift: int = 0) -> Compared:
    """A backbone whose head is right on the first images, or on those that are `shift` places on."""
    right = np.roll(np.arange(images) < round(accuracy * images), shift)
    return Compared(name, right, 1 - accuracy, 0.5, milliseconds, 10.0, 1280)


def test_differences_are_paired():
    ranking = rank([compared("best", 0.9, 1.0), compared("nested", 0.8, 1.0), compared("crossed", 0.8, 1.0, shift=50)])
    behind = ranking.set_index("name")
    assert behind.behind.tolist() == pytest.approx([0, 0.1, 0.1])
    assert behind.behind_low["nested"] > 0 > behind.behind_low["crossed"]
    assert behind.val_low.iloc[0] < 0.9 < behind.val_high.iloc[0]


@pytest.mark.parametrize(
    ("fast", "images", "is_alike"),
    [(0.88, 100, True), (0.88, 10_000, False), (0.8, 100, False)],  # 2, 200 and 10 photos that only the best one knows
)
def test_a_faster_backbone_is_named_if_it_cannot_be_told_from_the_best(fast, images, is_alike):
    ranking = rank([compared("slow", 0.9, 10.0, images), compared("fast", fast, 2.0, images)])
    words = recommendation(ranking, images)
    assert words.startswith("The most accurate is slow: 90.0% (8")
    assert ("Not told from it by these photos: fast (2.0 points behind" in words) is is_alike
    assert ("fast takes 20% of its time" in words) is is_alike
    assert ("Each of the others is less accurate by more than chance" in words) is not is_alike


def test_every_backbone_is_listed_with_its_licence():
    listed = list_backbones()
    assert all(re.search(rf"^{name} +\d+ pixels", listed, re.M) for name in [*CATALOGUE, "VGG16", "ConvNeXtTiny"])
    assert "CC BY (VGG, Oxford)" in listed


@pytest.fixture
def described() -> str:
    """Lite0 at 64 pixels with random weights."""
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
