from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from regraft.photos.dataset import Dataset
from regraft.reports import plots
from regraft.reports.plots import (
    class_balance_chart,
    confusion_chart,
    contact_sheet,
    image_statistics_chart,
    label_errors_sheet,
    mistakes_sheet,
    write_confusion,
    write_curve,
)
from regraft.training.keras_models import Epoch
from regraft.training.metrics import Score

CURVE = [Epoch(0, None, Score(0.25, 1.5)), Epoch(1, 1.25, Score(0.75, 0.5)), Epoch(2, 0.75, Score(0.5, 0.625))]
NAMES = ["a", "$x$ costs $5", r"$\frac{$", "<b>bold</b>", "西红柿", "NA", "007", "a, b", "x" * 300]


@pytest.fixture
def drawn(monkeypatch) -> list[matplotlib.figure.Figure]:
    """The figures that were saved."""
    figures, save = [], matplotlib.figure.Figure.savefig

    def record(figure, *args, **options):
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", record)
    return figures


def predictions(names: list[str]) -> tuple[Dataset, np.ndarray]:
    """Two test images of each class; the model takes every second for the next class."""
    rows = pd.DataFrame({"class_name": np.repeat(names, 2), "class_index": np.repeat(np.arange(len(names)), 2)})
    said = (rows.class_index + np.arange(len(rows)) % 2) % len(names)
    return Dataset(rows, names), np.eye(len(names))[said]


def is_drawn(path: Path) -> bool:
    """Whether a picture can be decoded and has more than one colour."""
    with Image.open(path) as picture:
        return len(picture.convert("RGB").getcolors(2**24) or []) > 1


def bar_labels(figure: matplotlib.figure.Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_the_largest_class_comes_first(tmp_path, drawn):
    class_balance_chart(tmp_path / "a.png", {"few": 2, "many": 9, "some": 5})
    assert bar_labels(drawn[0]) == ["many", "some", "few"]
    assert [bar.get_width() for bar in drawn[0].axes[0].patches] == [9, 5, 2]


def test_classes_whose_long_names_begin_alike_have_a_bar_each(tmp_path, drawn):
    class_balance_chart(
        tmp_path / "a.png", {"a very long class name, number one": 5, "a very long class name, number two": 3}
    )
    assert len({bar.get_y() for bar in drawn[0].axes[0].patches}) == 2


def test_a_chart_without_any_class_can_be_drawn(tmp_path):
    class_balance_chart(tmp_path / "a.png", {})
    assert is_drawn(tmp_path / "a.png")


LIMITS = {"brightness": (0.05, 0.95), "sharpness": (5.0, None), "aspect_ratio": (None, 3.0)}


def statistics(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {"brightness": [0.2, 0.4, 0.9], "sharpness": [1.0, 50.0, 900.0], "aspect_ratio": [1.0] * 3} | columns
    )


def test_every_statistic_has_a_histogram_of_shares_and_the_limits_that_lie_in_it(tmp_path, drawn):
    image_statistics_chart(tmp_path / "a.png", statistics(), None, LIMITS)
    brightness, sharpness, shape = drawn[0].axes[:3]
    assert [axes.get_title() for axes in (brightness, sharpness, shape)] == ["brightness", "sharpness", "aspect ratio"]
    assert sum(bar.get_height() for bar in brightness.patches) == pytest.approx(1)
    assert [len(axes.lines) for axes in (brightness, sharpness, shape)] == [0, 1, 0]
    assert (brightness.get_xscale(), sharpness.get_xscale()) == ("linear", "log")


def test_the_photos_of_the_model_in_production_are_drawn_beside_todays(tmp_path, drawn):
    image_statistics_chart(tmp_path / "a.png", statistics(), statistics(brightness=[0.3, 0.3, 0.3]), LIMITS)
    assert [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()] == ["now", "in production"]


def test_a_chart_of_photos_without_facts_can_be_drawn(tmp_path):
    nothing = statistics().iloc[:0]
    image_statistics_chart(tmp_path / "a.png", nothing, None, LIMITS)
    image_statistics_chart(tmp_path / "b.png", statistics(sharpness=[float("nan")] * 3), nothing, LIMITS)
    assert [is_drawn(picture) for picture in tmp_path.glob("*.png")] == [True, True]


@pytest.mark.filterwarnings("ignore:Glyph")  # not every machine has a font for every letter
@pytest.mark.parametrize("name", NAMES)
def test_any_class_name_can_be_drawn(tmp_path, name):
    class_balance_chart(tmp_path / "balance.png", {name: 3, "other": 2})
    write_confusion(tmp_path / "confusion.csv", *predictions([name, "other"]))
    confusion_chart(tmp_path / "confusion.csv", tmp_path / "confusion.png")
    assert [is_drawn(picture) for picture in tmp_path.glob("*.png")] == [True, True]


def test_the_curve_as_csv_has_a_line_per_epoch(tmp_path):
    write_curve(tmp_path / "curve.csv", CURVE, CURVE[1], title="Head")
    assert (tmp_path / "curve.csv").read_text() == (
        "epoch,train_loss,val_log_loss,val_accuracy\n0,,1.5,0.25\n1,1.25,0.5,0.75\n2,0.75,0.625,0.5\n"
    )


def test_the_epoch_that_was_kept_is_marked(tmp_path, drawn):
    write_curve(tmp_path / "curve.csv", CURVE, CURVE[1], title="Head")
    assert [label.get_text() for label in drawn[0].legends[0].get_texts()] == [
        "train, as it is minimized",
        "val",
        "kept: epoch 1",
    ]


def test_a_phase_that_was_off_says_so(tmp_path, drawn):
    write_curve(tmp_path / "curve.csv", [], None, title="Fine-tuning")
    assert [[text.get_text() for text in axes.texts] for axes in drawn[0].axes] == [["not run"]] * 2


def test_the_same_curve_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_curve(tmp_path / f"{name}.csv", CURVE, CURVE[1], title="Head")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_the_confusion_matrix_is_that_of_sklearn(tmp_path):
    test, probabilities = predictions(["a", "b", "c"])
    write_confusion(tmp_path / "confusion.csv", test, probabilities)
    table = pd.read_csv(tmp_path / "confusion.csv", index_col="actual")
    assert np.array_equal(table, confusion_matrix(test.rows.class_index, probabilities.argmax(axis=1)))


def test_a_class_without_test_images_has_its_row_and_column(tmp_path):
    test, probabilities = predictions(["a", "b"])
    wider = np.pad(probabilities, ((0, 0), (0, 1)))
    write_confusion(tmp_path / "confusion.csv", Dataset(test.rows, ["a", "b", "never seen"]), wider)
    table = pd.read_csv(tmp_path / "confusion.csv", index_col="actual")
    assert (table.shape, table.loc["never seen"].sum()) == ((3, 3), 0)


def test_the_confusion_chart_names_classes_as_they_are(tmp_path, drawn):
    names = ["007", "NA", "a, b", "true"]
    write_confusion(tmp_path / "confusion.csv", *predictions(names))
    confusion_chart(tmp_path / "confusion.csv", tmp_path / "confusion.png")
    assert bar_labels(drawn[0]) == names


def test_the_confusion_chart_writes_the_number_of_images_into_each_cell(tmp_path, drawn):
    write_confusion(tmp_path / "confusion.csv", *predictions(["a", "b", "c"]))
    confusion_chart(tmp_path / "confusion.csv", tmp_path / "confusion.png")
    # Each class once as itself and once as the next one.
    assert [text.get_text() for text in drawn[0].axes[0].texts] == ["1"] * 6


@pytest.fixture
def shown(monkeypatch) -> list[str]:
    """The paths of the photos that were drawn, in order."""
    paths, read_photo = [], plots.read_photo

    def record(raw, photo):
        paths.append(photo.path)
        return read_photo(raw, photo)

    monkeypatch.setattr(plots, "read_photo", record)
    return paths


def test_the_contact_sheet_shows_training_images_of_every_class(dataset, raw, preparation, tmp_path, shown):
    contact_sheet(tmp_path / "sheet.png", dataset, raw, preparation, on_progress=lambda *_: None)
    assert sorted(shown) == sorted(dataset.of("train").rows.path)
    assert is_drawn(tmp_path / "sheet.png")


def test_the_contact_sheet_counts_what_it_draws(dataset, raw, preparation, tmp_path):
    calls = []
    contact_sheet(tmp_path / "sheet.png", dataset, raw, preparation, on_progress=lambda *call: calls.append(call))
    assert calls == [(number, 18) for number in range(1, 19)]


def test_the_most_confident_mistakes_come_first(dataset, raw, tmp_path, shown):
    test = dataset.of("test")
    truth = test.rows.class_index.to_numpy()
    confidence = np.where(np.arange(len(test)) == 4, 0.9, 0.6)
    said = np.where(np.arange(len(test)) < 5, (truth + 1) % 3, truth)  # the first five are wrong, the fifth most surely
    probabilities = np.full((len(test), 3), 0.1) + np.eye(3)[said] * confidence[:, None]
    mistakes_sheet(tmp_path / "sheet.png", test, probabilities, raw, count=3)
    assert shown == list(test.rows.path[[4, 0, 1]])


def test_the_sheet_of_label_errors_shows_the_rows_that_it_is_given_in_their_order(dataset, raw, tmp_path, shown):
    errors = pd.DataFrame({"row": [7, 2], "suggested": ["apple", "piña"]})
    label_errors_sheet(tmp_path / "sheet.png", dataset, errors, raw)
    assert shown == list(dataset.rows.path[[7, 2]])


@pytest.mark.parametrize("count", [0, 24])
def test_a_sheet_without_mistakes_is_a_picture_too(dataset, raw, tmp_path, count):
    test = dataset.of("test")
    mistakes_sheet(tmp_path / "sheet.png", test, np.eye(3)[test.rows.class_index], raw, count=count)
    assert is_drawn(tmp_path / "sheet.png")
