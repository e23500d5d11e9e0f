"""The data set: images per class and split, and what was left out."""

from regraft.files import read_json
from regraft.reports.blocks import Page
from regraft.reports.expectations import NAMED
from regraft.reports.markdown import Bold, cell, table
from regraft.reports.sources import Sources


def dataset_page(sources: Sources) -> Page:
    """Return the page."""
    report = read_json(sources.reports / "dataset.json")
    rows = [[name, *splits.values()] for name, splits in report["classes"].items()]
    absent, left_out = report["not_in_test"], report["near_duplicates_left_out"]
    text = f"{report['images']} different images; {report['copies_left_out']} copies left out."
    if absent:
        text += f" No test image, so not measured: {', '.join(map(cell, absent))}."
    if left_out:
        text += (
            f" {len(left_out)} near-duplicates of photos in val or test left out of your other splits: "
            f"{', '.join(map(cell, left_out[:NAMED]))}."
        )
    counts = table(["class", "train", "val", "test"], [*rows, [Bold("all"), *report["splits"].values()]])
    return Page("dataset", "Data set", [text, counts])
