import csv

import pytest

from regraft.backbones.ranking import Compared, rank, recommendation, write_ranking


def compared(name: str, accuracy: float, milliseconds: float) -> Compared:
    return Compared(name, accuracy, 1 - accuracy, 0.5, milliseconds, 10.0, 1280)


def test_the_most_accurate_comes_first_and_what_could_not_be_tried_last():
    ranking = rank([Compared("c", problem="no weights"), compared("b", 0.7, 1.0), compared("a", 0.9, 5.0)])
    assert list(ranking.name) == ["a", "b", "c"]


def test_of_equal_accuracies_the_lower_log_loss_is_better():
    worse = Compared("worse", 0.9, 0.4, 0.5, 1.0, 1.0, 1)
    better = Compared("better", 0.9, 0.3, 0.5, 1.0, 1.0, 1)
    assert list(rank([worse, better]).name) == ["better", "worse"]


@pytest.mark.parametrize(
    ("fast", "images", "is_named"),
    [(0.88, 100, True), (0.88, 10_000, False), (0.8, 100, False)],  # a standard error of 0.03 and of 0.003
)
def test_a_faster_backbone_is_named_if_it_is_worse_by_no_more_than_noise(fast, images, is_named):
    words = recommendation(rank([compared("slow", 0.9, 10.0), compared("fast", fast, 2.0)]), images)
    assert words.startswith("The most accurate is slow (0.900")
    assert ("fast is within one standard error" in words and "20% of its time" in words) is is_named


def test_nothing_tried_is_said():
    words = recommendation(rank([Compared("a", problem="no weights")]), 100)
    assert words == "No backbone could be tried.\na could not be tried: no weights"


def test_the_table_is_written(tmp_path):
    write_ranking(tmp_path / "backbones.csv", rank([compared("b", 0.7, 1.0), compared("a", 0.9, 5.0)]))
    with (tmp_path / "backbones.csv").open() as file:
        assert [(row["name"], row["val_accuracy"]) for row in csv.DictReader(file)] == [("a", "0.9"), ("b", "0.7")]
