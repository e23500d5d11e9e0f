"""The data set: images per class, split, group and slice, and what was left out."""

from typing import Any

from regraft.files import read_json
from regraft.reports.blocks import Block, Page
from regraft.reports.expectations import NAMED, heading
from regraft.reports.markdown import Bold, cell, table
from regraft.reports.sources import Sources


def dataset_page(sources: Sources) -> Page:
    """Return the page."""
    report = read_json(sources.reports / "dataset.json")
    rows = [[name, *splits.values()] for name, splits in report["classes"].items()]
    blocks: list[Block] = [
        _totals(report),
        table(["class", "train", "val", "test"], [*rows, [Bold("all"), *report["splits"].values()]]),
    ]
    if left_out := report["left_out"]:
        blocks += [
            heading("Left out", left_out),
            "No group is in two splits: of its photos those in the best protected split stay, test before val before "
            "train.",
            table(["photo", "why"], [[entry["path"], entry["why"]] for entry in left_out[:NAMED]]),
        ]
    for name, found in report["slices"].items():
        blocks += [f"## Slices: {cell(name)}", _slices(found)]
    return Page("dataset", "Data set", blocks)


def _totals(report: dict[str, Any]) -> str:
    groups, absent = report["groups"], report["not_in_test"]
    text = f"{report['images']} different images; {report['copies_left_out']} copies left out."
    if groups["photos_in_larger"]:
        text += f" {groups['groups']} groups; {groups['photos_in_larger']} images are in groups of more than one."
    if groups["given"]:
        text += f" labels.csv gives {groups['given']} groups."
    if kept := report["kept_splits"]:
        text += (
            f" {kept} images have another split than the name of their group gives: their class lacked it, or the "
            f"group had it before others joined."
        )
    if report["note"]:
        text += f" {cell(report['note'])}"
    if absent:
        text += f" No test image, so not measured: {', '.join(map(cell, absent))}."
    return text


def _slices(found: dict[str, Any]) -> str:
    rows = [[value, count] for value, count in found["images"].items()]
    if more := found["values"] - len(rows):
        rows.append([Bold(f"{more} rarer values"), ""])
    if found["without"]:
        rows.append([Bold("without a value"), found["without"]])
    return table(["value", "images"], rows)
