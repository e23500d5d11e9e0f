from io import BytesIO

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regraft.reports.charts import (
    class_balance_chart,
    confusion_chart,
    image_statistics_chart,
)
from regraft.validation.drift import histograms

NAMES = [r"$\frac{$", "西红柿", "x" * 300, "a\nb", "\x00\x1b[31m", "\udc80"]


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


def test_a_chart_of_photos_without_facts_can_be_drawn():
    nothing = statistics().iloc[:0]
    assert opened(chart_of(nothing)).size == opened(chart_of(statistics(sharpness=[float("nan")] * 3), nothing)).size


@pytest.mark.filterwarnings("error")  # of letters that no font has, for instance
@pytest.mark.parametrize("name", NAMES)
def test_any_class_name_can_be_drawn_without_a_warning(name):
    assert opened(class_balance_chart({name: 3, "other": 2})).height > 0
    assert opened(confusion_chart(confusion([name, "other"]))).height > 0


def test_a_confusion_matrix_of_hundreds_of_classes_is_no_larger_than_one_of_a_few(drawn):
    assert max(opened(confusion_chart(confusion([f"class {number}" for number in range(500)]))).size) < 1000
    assert list(drawn[0].axes[0].texts) == []
