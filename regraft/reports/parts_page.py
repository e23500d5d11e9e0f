"""Parts of the test split: how often each class is found, and how accurate the file is on each slice."""

import pandas as pd

from regraft.files import read_json
from regraft.reports.blocks import Block, Page
from regraft.reports.expectations import NAMED
from regraft.reports.markdown import Bold, table
from regraft.reports.sources import Sources
from regraft.training.parts import FEW, read_classes, read_slices


def parts_page(sources: Sources) -> Page:
    """Return the page."""
    classes, slices = read_classes(sources.reports / "classes.csv"), read_slices(sources.reports / "slices.csv")
    test = read_json(sources.reports / "metrics.json")["test"]
    blocks: list[Block] = [
        f"In brackets the 95% interval. Near-duplicates and photos of one group count in it as far as they are "
        f"independent evidence: {test['images']} test photos tell as much as {test['independent_images']}. The worst "
        f"part is the one whose interval ends lowest.",
        _heading("Recall of each class", classes),
        table(["class", "test photos", "recall", ""], _rows(classes, ["class_name"], "recall")),
    ]
    if len(slices):
        blocks += [
            _heading("Slices", slices),
            table(["slice", "value", "test photos", "accuracy", ""], _rows(slices, ["slice", "value"], "accuracy")),
            "A value is marked only if its difference from the rest is more than chance: over all values together, "
            "chance marks any in at most 5 of 100 runs (Fisher's exact test, Holm's correction). slices.csv has all.",
        ]
    return Page("parts", "Classes and slices of the test split", blocks)


def _heading(title: str, rows: pd.DataFrame) -> str:
    return f"## {title}, the worst first" + (f": {NAMED} of {len(rows)}" if len(rows) > NAMED else "")


def _rows(parts: pd.DataFrame, names: list[str], figure: str) -> list[list[object]]:
    return [
        [
            *(row[name] or "(none)" for name in names),
            row["images"],
            f"{row[figure]:.1%} ({row['low']:.0%} to {row['high']:.0%})" if row["images"] else "-",
            row["note"] if row["note"] in ("", FEW) else Bold(row["note"]),
        ]
        for row in parts.head(NAMED).to_dict("records")
    ]
