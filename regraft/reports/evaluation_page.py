"""The shipped file on the test split: its figures, mistakes, classes, slices, probabilities and threshold."""

from typing import Any

import pandas as pd

from regraft.core.csv_files import read_csv
from regraft.core.files import read_json
from regraft.core.statistics import Interval
from regraft.export.evaluation import (
    FEW,
    RELIABILITY,
    RISK_COVERAGE,
    read_classes,
    read_confusion,
    read_predictions,
    read_slices,
)
from regraft.reports.charts import confusion_chart, reliability_chart, risk_coverage_chart
from regraft.reports.mistakes import mistakes_of
from regraft.reports.page import Block, Bold, Chart, Heading, Page, Photos, Table
from regraft.reports.sources import Sources
from regraft.reports.validation_page import NAMED

_PAIRS = 10  # of classes that are taken for each other
_FIGURES = {
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "ece_by_chance": "the same of calibrated probabilities, by chance",
}
_MARKS = (
    "A value is marked only if its difference from the rest is more than chance: over all values together, chance "
    "marks any in at most 5 of 100 runs (Fisher's exact test, Holm's correction). slices.csv has all."
)


def metrics_page(sources: Sources) -> Page:
    """Return the page with the figures."""
    return Page("metrics", "Test split, through the shipped file", [figures_table(sources)])


def figures_table(sources: Sources) -> Table:
    """Return the figures of the whole test split."""
    test = figures_of_test(sources)
    accuracy = f"{test['accuracy']:.4f} (95% interval: {test['accuracy_low']:.4f} to {test['accuracy_high']:.4f})"
    shown = {name: value for name, value in test.items() if name not in ("accuracy_low", "accuracy_high")}
    rows = [
        [name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else value]
        for name, value in {**shown, "accuracy": accuracy}.items()
    ]
    return Table(["figure", "value"], rows)


def figures_of_test(sources: Sources) -> dict[str, Any]:
    """Return the figures of the test split from metrics.json."""
    return read_json(sources.reports / "metrics.json")["test"]


def of_all(test: dict[str, Any]) -> str:
    """Return a suffix with the size of the test split where only a sample of it was scored."""
    return f" (a sample of {test['of_images']:,})" if "of_images" in test else ""


def confusion_page(sources: Sources) -> Page:
    """Return the page with the confusion matrix and the mistakes."""
    test, wrong = figures_of_test(sources), _wrong(sources)
    counted = [f"Counted on {test['images']} test photos{of_all(test)}."] if of_all(test) else []
    tiles, words = mistakes_of(wrong.sort_values("confidence", ascending=False, kind="stable"), sources)
    blocks: list[Block] = [
        *counted,
        Chart("confusion matrix", confusion_chart(read_confusion(sources.reports / "confusion.csv"))),
        confused_table(sources),
        Heading("Most confident mistakes"),
        words,
        Photos("most confident mistakes", [("", tiles)]),
    ]
    return Page("confusion-matrix", "Confusion matrix", blocks)


def confused_table(sources: Sources) -> Table:
    """Return the classes that are taken for each other most often."""
    counts = _wrong(sources).groupby(["actual", "predicted"]).size().sort_values(ascending=False, kind="stable")
    pairs = zip(counts.index, counts.tolist(), strict=True)
    return Table(["actual", "predicted", "photos"], [[*names, count] for names, count in pairs][:_PAIRS])


def _wrong(sources: Sources) -> pd.DataFrame:
    predictions = read_predictions(sources.reports / "predictions.csv")
    return predictions[predictions.actual != predictions.predicted]


def parts_page(sources: Sources) -> Page:
    """Return the page with the recall of each class and the accuracy on each slice."""
    test = figures_of_test(sources)
    intervals = (
        f"In brackets the 95% interval. Near-duplicates and photos of one group count in it as far as they are "
        f"independent evidence: {test['images']} test photos{of_all(test)} tell as much as "
        f"{test['independent_images']}. The worst part is the one whose interval ends lowest."
    )
    return Page("parts", "Classes and slices of the test split", [intervals, *parts_tables(sources, NAMED)])


def parts_tables(sources: Sources, most: int) -> list[Block]:
    """Return the tables of classes and slices with at most so many rows each, under headings."""
    classes, slices = read_classes(sources.reports / "classes.csv"), read_slices(sources.reports / "slices.csv")
    recalls = Table(["class", "test photos", "recall", ""], _parts(classes.head(most), ["class_name"], "recall"))
    blocks: list[Block] = [_heading("Recall of each class", classes, most), recalls]
    if len(slices):
        header = ["slice", "value", "test photos", "accuracy", ""]
        rows = _parts(slices.head(most), ["slice", "value"], "accuracy")
        blocks += [_heading("Slices", slices, most), Table(header, rows), _MARKS]
    return blocks


def _heading(title: str, parts: pd.DataFrame, most: int) -> Heading:
    return Heading(f"{title}, the worst first" + (f": {most} of {len(parts)}" if len(parts) > most else ""))


def _parts(parts: pd.DataFrame, names: list[str], figure: str) -> list[list[object]]:
    return [
        [
            *(row[name] or "(none)" for name in names),
            row["images"],
            f"{row[figure]:.1%} ({row['low']:.0%} to {row['high']:.0%})" if row["images"] else "-",
            row["note"] if row["note"] in ("", FEW) else Bold(row["note"]),
        ]
        for row in parts.to_dict("records")
    ]


def calibration_page(sources: Sources) -> Page:
    """Return the page on the probabilities as such, and on how often a known photo is called novel."""
    chart = Chart(
        "accuracy by confidence", reliability_chart(read_csv(sources.reports / "reliability.csv", RELIABILITY))
    )
    return Page("calibration", "How far its probabilities can be trusted", [*calibration_blocks(sources), chart])


def calibration_blocks(sources: Sources) -> list[Block]:
    """Return the calibration and its effect on the test split."""
    chosen = read_json(sources.reports / "export.json")["calibration"]
    report, test = read_json(sources.reports / "calibration.json"), figures_of_test(sources)
    rows = [[name, *(f"{report[when][key]:.4f}" for when in ("before", "after"))] for key, name in _FIGURES.items()]
    blocks: list[Block] = [
        chosen["words"],
        Table([f"test photos{of_all(test)}", "as trained", "as shipped"], rows),
    ]
    if novel := report.get("novel"):
        share = Interval(**novel["share"])
        expected = f"; {novel['expected']:.1%} were expected" if novel.get("expected") else ""
        blocks.append(f"Of {novel['images']} test photos{of_all(test)} {share} are called novel{expected}.")
    return blocks


def abstention_page(sources: Sources) -> Page:
    """Return the page on the threshold below which the file is unsure, and on its precision above it."""
    chosen, on_test = abstention_of(sources)
    curve = read_csv(sources.reports / "risk_coverage.csv", RISK_COVERAGE)
    chart = Chart("precision by the share of photos that are answered", risk_coverage_chart(curve, chosen["promise"]))
    return Page("abstention", "When it is unsure", [chosen["words"], on_test, chart])


def abstention_of(sources: Sources) -> tuple[dict[str, Any], str]:
    """Return the threshold as chosen on val, and the sentence on its outcome on test."""
    chosen = read_json(sources.reports / "export.json")["abstention"]
    return chosen, read_json(sources.reports / "abstention.json")["words"]
