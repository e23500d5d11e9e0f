"""The shipped file on the test split: its figures, what it takes for what, and its most confident mistakes."""

from typing import Any

import pandas as pd

from regraft.files import read_json
from regraft.reports.blocks import Chart, Page, Photos
from regraft.reports.charts import confusion_chart
from regraft.reports.markdown import table
from regraft.reports.mistakes import mistakes_of
from regraft.reports.sources import Sources
from regraft.training.tables import read_confusion, read_predictions

_PAIRS = 10  # of classes that are taken for each other


def metrics_page(sources: Sources) -> Page:
    """Return the page with the figures."""
    return Page("metrics", "Test split, through the shipped file", [figures_table(sources)])


def figures_table(sources: Sources) -> str:
    """Return the figures of the whole test split."""
    test = read_json(sources.reports / "metrics.json")["test"]
    accuracy = f"{test['accuracy']:.4f} (95% interval: {test['accuracy_low']:.4f} to {test['accuracy_high']:.4f})"
    shown = {name: value for name, value in test.items() if name not in ("accuracy_low", "accuracy_high")}
    rows = [
        [name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else value]
        for name, value in {**shown, "accuracy": accuracy}.items()
    ]
    return table(["figure", "value"], rows)


def of_all(test: dict[str, Any]) -> str:
    """Return, for behind a number of test photos, of how many they are a sample; nothing where they are all."""
    return f" (a sample of {test['of_images']:,})" if "of_images" in test else ""


def confusion_page(sources: Sources) -> Page:
    """Return the page with the confusion matrix and the mistakes."""
    confusion = read_confusion(sources.reports / "confusion.csv")
    wrong = _wrong(sources)
    tiles, words = mistakes_of(wrong.sort_values("confidence", ascending=False, kind="stable"), sources)
    return Page(
        "confusion-matrix",
        "Confusion matrix",
        [
            *_counted_on(sources),
            Chart("confusion matrix", confusion_chart(confusion)),
            confused_table(sources),
            "## Most confident mistakes",
            words,
            Photos("most confident mistakes", [("", tiles)]),
        ],
    )


def _counted_on(sources: Sources) -> list[str]:
    """Return on how many photos was counted, where that is a sample."""
    test = read_json(sources.reports / "metrics.json")["test"]
    return [f"Counted on {test['images']} test photos{of_all(test)}."] if of_all(test) else []


def confused_table(sources: Sources) -> str:
    """Return the classes that are taken for each other most often."""
    return table(["actual", "predicted", "photos"], _pairs(_wrong(sources)))


def _wrong(sources: Sources) -> pd.DataFrame:
    predictions = read_predictions(sources.reports / "predictions.csv")
    return predictions[predictions.actual != predictions.predicted]


def _pairs(wrong: pd.DataFrame) -> list[list[object]]:
    """Return the classes that are taken for each other most often."""
    counts = wrong.groupby(["actual", "predicted"]).size().sort_values(ascending=False, kind="stable")
    return [[*names, count] for names, count in zip(counts.index, counts.tolist(), strict=True)][:_PAIRS]
