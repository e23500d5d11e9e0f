"""Parts of the test split: how often each class is found, and how accurate the file is on each slice."""

import pandas as pd

from regraft.files import read_json
from regraft.reports.blocks import Page
from regraft.reports.evaluation_page import of_all
from regraft.reports.expectations import NAMED
from regraft.reports.markdown import Bold, table
from regraft.reports.sources import Sources
from regraft.training.parts import FEW, read_classes, read_slices


def parts_page(sources: Sources) -> Page:
    """Return the page."""
    test = read_json(sources.reports / "metrics.json")["test"]
    intervals = (
        f"In brackets the 95% interval. Near-duplicates and photos of one group count in it as far as they are "
        f"independent evidence: {test['images']} test photos{of_all(test)} tell as much as "
        f"{test['independent_images']}. The worst part is the one whose interval ends lowest."
    )
    return Page("parts", "Classes and slices of the test split", [intervals, *parts_tables(sources, NAMED)])


def parts_tables(sources: Sources, rows: int, level: str = "##") -> list[str]:
    """Return the tables of classes and slices, so many rows each at most, under headings of a level."""
    classes, slices = read_classes(sources.reports / "classes.csv"), read_slices(sources.reports / "slices.csv")
    blocks = [
        _heading(level, "Recall of each class", classes, rows),
        table(["class", "test photos", "recall", ""], _rows(classes.head(rows), ["class_name"], "recall")),
    ]
    if len(slices):
        header = ["slice", "value", "test photos", "accuracy", ""]
        blocks += [
            _heading(level, "Slices", slices, rows),
            table(header, _rows(slices.head(rows), ["slice", "value"], "accuracy")),
            "A value is marked only if its difference from the rest is more than chance: over all values together, "
            "chance marks any in at most 5 of 100 runs (Fisher's exact test, Holm's correction). slices.csv has all.",
        ]
    return blocks


def _heading(level: str, title: str, parts: pd.DataFrame, rows: int) -> str:
    return f"{level} {title}, the worst first" + (f": {rows} of {len(parts)}" if len(parts) > rows else "")


def _rows(parts: pd.DataFrame, names: list[str], figure: str) -> list[list[object]]:
    return [
        [
            *(row[name] or "(none)" for name in names),
            row["images"],
            f"{row[figure]:.1%} ({row['low']:.0%} to {row['high']:.0%})" if row["images"] else "-",
            row["note"] if row["note"] in ("", FEW) else Bold(row["note"]),
        ]
        for row in parts.to_dict("records")
    ]
