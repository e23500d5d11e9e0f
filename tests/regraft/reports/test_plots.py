from io import BytesIO

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regraft.reports.charts import (
    class_balance_chart,
    confusion_chart,
    curve_chart,
    image_statistics_chart,
    risk_coverage_chart,
)
from regraft.training.metrics import in_words, objective_of
from regraft.validation.drift import histograms

CURVE = pd.DataFrame(
    {
        "epoch": [0, 1, 2],
        "train_loss": [None, 1.25, 0.75],
        "val_log_loss": [1.5, 0.5, 0.6],
        "val_accuracy": [0.2, 0.7, 0.5],
        "val_balanced_log_loss": [1.75, 0.75, 0.85],
        "val_macro_recall": [0.1, 0.6, 0.4],
    }
)
ACCURACY, RECALL = objective_of("none"), objective_of("balanced")
NAMES = ["a", "$x$ costs $5", r"$\frac{$", r"a \$ b$", "<b>bold</b>", "西红柿", "NA", "a, b", "x" * 300]
NAMES += ["a\nb", "\x00\x1b[31m", "\udc80", "\u202egnp.a"]


@pytest.fixture
def drawn(monkeypatch) -> list[matplotlib.figure.Figure]:
    """The figures that were saved."""
    figures, save = [], matplotlib.figure.Figure.savefig

    def record(figure, *args, **options):
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", record)
    return figures


def confusion(names: list[str]) -> pd.DataFrame:
    """Each class once taken for itself and once for the next one."""
    count = len(names)
    counts = np.eye(count, dtype=int) + np.roll(np.eye(count, dtype=int), 1, axis=1)
    return pd.DataFrame(counts, pd.Index(names, dtype=object))


def opened(png: bytes) -> Image.Image:
    image = Image.open(BytesIO(png))
    image.load()
    return image


def bar_labels(figure: matplotlib.figure.Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_the_largest_class_comes_first(drawn):
    assert opened(class_balance_chart({"few": 2, "many": 9, "some": 5})).getpixel((0, 0)) == (255, 255, 255, 0)
    assert bar_labels(drawn[0]) == ["many", "some", "few"]
    assert [bar.get_width() for bar in drawn[0].axes[0].patches] == [9, 5, 2]


def test_classes_whose_long_names_begin_alike_have_a_bar_each(drawn):
    class_balance_chart({"a very long class name, number one": 5, "a very long class name, number two": 3})
    assert len({bar.get_y() for bar in drawn[0].axes[0].patches}) == 2


def test_of_thousands_of_classes_the_largest_and_smallest_are_drawn_and_the_chart_says_so(drawn):
    class_balance_chart({f"class {size}": size for size in range(1, 3001)})
    labels = bar_labels(drawn[0])
    assert (labels[0], labels[99], labels[100], labels[199]) == ("class 3000", "class 2901", "class 100", "class 1")
    assert "2800 between them are not drawn" in drawn[0].axes[0].get_title()


LIMITS = {"brightness": (0.05, 0.95), "sharpness": (5.0, None), "aspect_ratio": (None, 3.0)}


def statistics(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {"brightness": [0.2, 0.4, 0.9], "sharpness": [1.0, 50.0, 900.0], "aspect_ratio": [1.0] * 3} | columns
    )


def chart_of(now: pd.DataFrame, former: pd.DataFrame | None = None) -> bytes:
    return image_statistics_chart(histograms(now, former, LIMITS))


def test_every_statistic_has_a_histogram_of_shares_and_the_limits_that_lie_in_it(drawn):
    chart_of(statistics())
    brightness, sharpness, shape = drawn[0].axes[:3]
    assert [axes.get_title() for axes in (brightness, sharpness, shape)] == ["brightness", "sharpness", "aspect ratio"]
    assert brightness.patches[0].get_data().values.sum() == pytest.approx(1)
    assert [len(axes.lines) for axes in (brightness, sharpness, shape)] == [0, 1, 0]
    assert (brightness.get_xscale(), sharpness.get_xscale()) == ("linear", "log")


def test_the_photos_of_the_model_in_production_are_drawn_beside_todays(drawn):
    chart_of(statistics(), statistics(brightness=[0.3, 0.3, 0.3]))
    assert [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()] == ["now", "in production"]


def test_a_chart_of_photos_without_facts_can_be_drawn():
    nothing = statistics().iloc[:0]
    assert opened(chart_of(nothing)).size == opened(chart_of(statistics(sharpness=[float("nan")] * 3), nothing)).size


@pytest.mark.filterwarnings("error")  # of letters that no font has, for instance
@pytest.mark.parametrize("name", NAMES)
def test_any_class_name_can_be_drawn_without_a_warning(name):
    assert opened(class_balance_chart({name: 3, "other": 2})).height > 0
    assert opened(confusion_chart(confusion([name, "other"]))).height > 0


@pytest.mark.parametrize("objective", [ACCURACY, RECALL])
def test_the_curves_are_those_of_the_two_figures_that_the_training_is_judged_by(drawn, objective):
    curve_chart(CURVE, objective, best_epoch=1)
    left, right = drawn[0].axes
    assert (left.get_ylabel(), right.get_ylabel()) == tuple(map(in_words, (objective.loss, objective.share)))
    assert left.lines[1].get_ydata().tolist() == CURVE[f"val_{objective.loss}"].tolist()
    assert right.lines[0].get_ydata().tolist() == CURVE[f"val_{objective.share}"].tolist()
    legend = ["train, as it is minimized", "val", "best: epoch 1"]
    assert [label.get_text() for label in drawn[0].legends[0].get_texts()] == legend


def test_the_confusion_chart_has_the_names_of_classes_and_the_number_of_images_in_each_cell(drawn):
    confusion_chart(confusion(["007", "NA", "a, b"]))
    assert bar_labels(drawn[0]) == ["007", "NA", "a, b"]
    assert [text.get_text() for text in drawn[0].axes[0].texts] == ["1"] * 6


def test_a_confusion_matrix_of_hundreds_of_classes_is_no_larger_than_one_of_a_few(drawn):
    assert max(opened(confusion_chart(confusion([f"class {number}" for number in range(500)]))).size) < 1000
    assert list(drawn[0].axes[0].texts) == []


@pytest.mark.parametrize(("abstain_below", "line"), [(0.7, 0.5), (2.0, 0.0)])
def test_the_curve_of_risk_shows_the_promise_and_how_many_photos_are_answered(drawn, abstain_below, line):
    curve = pd.DataFrame({"threshold": [0.9, 0.7, 0.6], "coverage": [0.25, 0.5, 1.0], "precision": [1.0, 0.9, 0.8]})
    assert opened(risk_coverage_chart(curve, {"abstain_below": abstain_below, "target_precision": 0.9})).width > 0
    risk_coverage_chart(curve, None)
    lines = [list(each.get_xdata()) for each in drawn[0].axes[0].lines]
    assert lines[0] == [0.25, 0.5, 1.0]
    assert lines[2] == [line, line]
    assert len(drawn[1].axes[0].lines) == 1
