"""Validation and the data set: pages on the photos, and reports/validation.html with those that validation names.

That page needs nothing but the data folder and the report, so that it is there when validation stops a run.
"""

import re
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from regraft.core.files import read_json
from regraft.photos.dataset import Dataset
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads
from regraft.reports.charts import class_balance_chart, image_statistics_chart
from regraft.reports.page import Block, Bold, Chart, Heading, Page, Photos, Table, write_page
from regraft.reports.sources import Sources
from regraft.reports.thumbnails import thumbnails

_SHOWN = 12  # photos of each violated expectation
NAMED = 20  # rows of a table of problems
_OFFENDERS = 3  # of an expectation that are named in its row
_SIGNS = {"error": Bold("fails"), "warn": Bold("warning"), "note": "note"}  # where it is violated, by severity


def validation_page(sources: Sources) -> Page:
    """Return the page with the expectations."""
    return _validation(read_json(sources.reports / "validation.json"))


def class_balance_page(sources: Sources) -> Page:
    """Return the page with the number of images per class."""
    return _class_balance(read_json(sources.reports / "validation.json"))


def image_statistics_page(sources: Sources) -> Page:
    """Return the page with the histograms."""
    return _image_statistics(read_json(sources.reports / "validation.json"))


def write_validation_page(
    path: Path,
    report: dict[str, Any],
    manifest: pd.DataFrame,
    photos: Dataset,
    *,
    threads: Threads,
    limits: DecodeLimits,
) -> None:
    """Write reports/validation.html.

    Args:
        path: of the page.
        report: what reports/validation.json holds.
        manifest: that was checked; rows of the files that the report names are enough.
        photos: of the manifest, from `photos_of`.
        threads: that wait for the thumbnails.
        limits: of drawing one.
    """
    # What could not be decoded once must not be tried again here: it is named in the tables and has no picture.
    readable = set(manifest.path[(manifest.verdict == "use") | manifest.conflict])
    pages = [_validation(report), _class_balance(report), _image_statistics(report)]
    violated = [result for result in report["expectations"] if not result["success"]]
    shown = [[name for name in result["paths"] if name in readable][:_SHOWN] for result in violated]
    captions = {name: name for name in chain.from_iterable(shown)}
    drawn = thumbnails(photos, captions, threads, limits, are_whole=True)  # all at once: processes take long to start
    tiles_of = {tile.caption: tile for tile in drawn}
    for result, names in zip(violated, shown, strict=True):
        if names:
            more = f"; the first {len(names)}" if result["count"] > len(names) else ""
            text = f"Found {result['found']}{more}. {result['advice']}"
            key = f"photos-{re.sub('[^a-z0-9]+', '-', result['name'].lower())}"
            tiles = Photos("offenders", [("", [tiles_of[name] for name in names])])
            pages.append(Page(key, f"Expected: {result['expected']}", [text, tiles]))
    write_page(path, "Regraft: validation of the photos", pages)


def _validation(report: dict[str, Any]) -> Page:
    files = report["files"]
    can = "The images can be trained on."
    blocks: list[Block] = [
        can if report["success"] else Bold("The images cannot be trained on."),
        f"{files['use']} images are used, {files['quarantine']} are quarantined, {files['ignore']} files are "
        f"not images. Layout of the data folder: {report['layout']}.",
        expectations_table(report),
        Heading("Against the model in production"),
        report["compared_with"],
    ]
    if report["drift"]:
        blocks.append(_drift(report["drift"]))
    if report["not_used"]:
        # Meant as images and lost, before what nobody meant as an image.
        not_used = sorted(report["not_used"], key=lambda row: row["verdict"] != "quarantine")
        named = [[row["path"], row["verdict"], row["reason"]] for row in not_used[:NAMED]]
        blocks += [
            Heading(f"Not used: {len(report['not_used'])} (the first {len(named)}; all are in validation.json)"),
            Table(["file", "verdict", "why"], named),
        ]
    return Page("validation", "Validation", blocks)


def _class_balance(report: dict[str, Any]) -> Page:
    chart = Chart("images per class", class_balance_chart(report["classes"]))
    return Page("class-balance", "Class balance", [chart])


def _image_statistics(report: dict[str, Any]) -> Page:
    text = (
        "Shares of the used photos. Dashed lines are limits of params.yaml; grey outlines are the photos that the "
        "model in production was trained on. Sharpness is the variance of the Laplacian."
    )
    chart = Chart("histograms of image statistics", image_statistics_chart(report["statistics"]))
    return Page("image-statistics", "Statistics of the photos", [text, chart])


def _drift(rows: list[dict[str, Any]]) -> Table:
    """Return the drift since the model in production, marked where it exceeds chance and params.yaml."""
    whose = {"all": "all", "joined": "only those that joined"}
    models = {"production": "the model in production", "anchor": "the anchor"}
    cells = [
        [
            row["quantity"].replace("_", " "),
            f"{whose[row['photos']]}: {row['now']}",
            models[row["against"]],
            row["words"],
            f"{row['psi']:.3f}",
            f"{row['limit']:.3f}",
            Bold("moved") if row["psi"] > row["limit"] else "as before",
        ]
        for row in rows
    ]
    return Table(["", "photos", "against", "then and now", "stability index", "limit", ""], cells)


def expectations_table(report: dict[str, Any]) -> Table:
    """Return the expectations of a report: what stops the run first, then warnings, notes, and what is met."""
    rows = [
        [
            _sign(result),
            result["severity"],
            result["expected"],
            _found(result),
            "" if result["success"] else _named(result["offenders"]),
            "" if result["success"] else result["advice"],
        ]
        for result in sorted(report["expectations"], key=_urgency)
    ]
    return Table(["", "severity", "expected", "found", "which", "what to do"], rows)


def heading(title: str, rows: list[Any]) -> Heading:
    """Return a heading with the number of rows, and how many of them the table below it has."""
    return Heading(f"{title}: {len(rows)}" + (f", the first {NAMED}" if len(rows) > NAMED else ""))


def _found(result: dict[str, Any]) -> str:
    """What was found, and what is usual in this folder where that made a difference."""
    return f"{result['found']}. {result['note']}" if result.get("note") else result["found"]


def _urgency(result: dict[str, Any]) -> int:
    return len(_SIGNS) if result["success"] else list(_SIGNS).index(result["severity"])


def _named(offenders: list[str]) -> str:
    return "; ".join(offenders[:_OFFENDERS]) + ("; ..." if len(offenders) > _OFFENDERS else "")


def _sign(result: dict[str, Any]) -> str:
    return "ok" if result["success"] else _SIGNS[result["severity"]]


def dataset_page(sources: Sources) -> Page:
    """Return the page on the data set: images per class, split, group and slice, and the excluded ones."""
    report = read_json(sources.reports / "dataset.json")
    rows = [[name, *splits.values()] for name, splits in report["classes"].items()]
    blocks: list[Block] = [
        _totals(report),
        Table(["class", "train", "val", "test"], [*rows, [Bold("all"), *report["splits"].values()]]),
    ]
    if left_out := report["left_out"]:
        blocks += [
            heading("Left out", left_out),
            "No group is in two splits: of its photos those in the best protected split stay, test before val before "
            "train.",
            Table(["photo", "why"], [[entry["path"], entry["why"]] for entry in left_out[:NAMED]]),
        ]
    for name, found in report["slices"].items():
        blocks += [Heading(f"Slices: {name}"), _slices(found)]
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
        text += f" {report['note']}"
    if absent:
        text += f" No test image, so not measured: {', '.join(absent)}."
    return text


def _slices(found: dict[str, Any]) -> Table:
    rows = [[value, count] for value, count in found["images"].items()]
    if more := found["values"] - len(rows):
        rows.append([Bold(f"{more} rarer values"), ""])
    if found["without"]:
        rows.append([Bold("without a value"), found["without"]])
    return Table(["value", "images"], rows)
