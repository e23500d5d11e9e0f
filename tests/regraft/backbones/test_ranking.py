import csv

import numpy as np
import pytest

from regraft.backbones.ranking import Compared, rank, recommendation, write_ranking


def compared(name: str, accuracy: float, milliseconds: float, images: int = 100, shift: int = 0) -> Compared:
    """A backbone whose head is right on the first images, or on those that are `shift` places on."""
    right = np.roll(np.arange(images) < round(accuracy * images), shift)
    return Compared(name, right, 1 - accuracy, 0.5, milliseconds, 10.0, 1280)


def test_the_most_accurate_comes_first_and_what_could_not_be_tried_last():
    ranking = rank([Compared("c", problem="no weights"), compared("b", 0.7, 1.0), compared("a", 0.9, 5.0)])
    assert list(ranking.name) == ["a", "b", "c"]
    assert ranking.val_accuracy.tolist()[:2] == [0.9, 0.7]
    assert ranking.val_accuracy.isna().tolist() == [False, False, True]


def test_of_equal_accuracies_the_lower_log_loss_is_better():
    right = np.ones(10, bool)
    assert list(rank([Compared("worse", right, 0.4), Compared("better", right, 0.3)]).name) == ["better", "worse"]


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


def test_one_backbone_alone_is_compared_with_nothing():
    words = recommendation(rank([compared("only", 0.9, 1.0)]), 100)
    assert words == "The most accurate is only: 90.0% (82.6% to 94.5%) of 100 val photos."


def test_nothing_tried_is_said():
    words = recommendation(rank([Compared("a", problem="no weights")]), 100)
    assert words == "No backbone could be tried.\na could not be tried: no weights"


def test_the_table_is_written(tmp_path):
    write_ranking(tmp_path / "backbones.csv", rank([compared("b", 0.7, 1.0), compared("a", 0.9, 5.0)]))
    with (tmp_path / "backbones.csv").open() as file:
        assert [(row["name"], row["val_accuracy"]) for row in csv.DictReader(file)] == [("a", "0.9"), ("b", "0.7")]
