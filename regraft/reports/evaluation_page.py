"""The shipped file on the test split: its figures, what it takes for what, and its most confident mistakes."""

import pandas as pd

from regraft.files import read_json
from regraft.reports.blocks import Chart, Page, Photos
from regraft.reports.markdown import table
from regraft.reports.plots import confusion_chart
from regraft.reports.sources import Sources
from regraft.reports.thumbnails import thumbnails
from regraft.training.tables import read_confusion, read_predictions

_PAIRS = 10  # of classes that are taken for each other


def metrics_page(sources: Sources) -> Page:
    """Return the page with the figures."""
    test = read_json(sources.reports / "metrics.json")["test"]
    accuracy = f"{test['accuracy']:.4f} (95% interval: {test['accuracy_low']:.4f} to {test['accuracy_high']:.4f})"
    shown = {name: value for name, value in test.items() if name not in ("accuracy_low", "accuracy_high")}
    rows = [
        [name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else value]
        for name, value in {**shown, "accuracy": accuracy}.items()
    ]
    return Page("metrics", "Test split, through the shipped file", [table(["figure", "value"], rows)])


def confusion_page(sources: Sources) -> Page:
    """Return the page with the confusion matrix and the mistakes."""
    confusion = read_confusion(sources.reports / "confusion.csv")
    predictions = read_predictions(sources.reports / "predictions.csv")
    wrong = predictions[predictions.actual != predictions.predicted]
    worst = wrong.sort_values("confidence", ascending=False, kind="stable").head(sources.photos)
    captions = {row.path: f"{row.predicted} {row.confidence:.0%}\nis {row.actual}" for row in worst.itertuples()}
    tiles = thumbnails(sources.read_dataset(), captions, sources.threads, sources.limits)
    return Page(
        "confusion-matrix",
        "Confusion matrix",
        [
            Chart("confusion matrix", confusion_chart(confusion)),
            table(["actual", "predicted", "photos"], _pairs(wrong)),
            "## Most confident mistakes",
            Photos("most confident mistakes", [("", tiles)]),
        ],
    )


def _pairs(wrong: pd.DataFrame) -> list[list[object]]:
    """Return the classes that are taken for each other most often."""
    counts = wrong.groupby(["actual", "predicted"]).size().sort_values(ascending=False, kind="stable")
    return [[*names, count] for names, count in zip(counts.index, counts.tolist(), strict=True)][:_PAIRS]
