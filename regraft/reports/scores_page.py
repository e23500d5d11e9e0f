"""The scored photos: reports/scores.html, and the same as Markdown."""

from pathlib import Path
from typing import Any

import pandas as pd

from regraft.photos.dataset import COLUMNS, Dataset
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads
from regraft.reports.charts import image_statistics_chart, shares_chart
from regraft.reports.contact_sheet import Tile
from regraft.reports.page import Block, Bold, Chart, Heading, Page, Photos, Table, to_markdown, write_page
from regraft.reports.thumbnails import thumbnails
from regraft.reports.validation_page import NAMED

_MOST_CLASSES = 60  # that the page has a line of
_COUNTS = {
    "photos": "photos that are there and scored",
    "new": "of them new in this run",
    "computed": "of them the model was run on",
    "unsure": "of which the model is unsure",
    "novel": "that are novel",
    "bad": "files that cannot be read",
    "skipped": "files that are no photos, and are left out",
    "gone": "photos that are gone, whose rows are kept",
}
_RULE = (
    "A limit is what chance seldom exceeds with so few photos, and at least what is worth a look. Statistics are "
    "compared class by class, as the model names the classes."
)


def tiles_of(report: dict[str, Any], folder: Path, count: int, threads: Threads, limits: DecodeLimits) -> list[Tile]:
    """Return thumbnails of the photos that a person should look at first; one that is gone by now is grey."""
    shown = report["to_look_at"][:count]
    rows = [(each["sha256"], each["path"], "", 0, "test", "") for each in shown]
    photos = Dataset(pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS), [], folder)
    return thumbnails(photos, {each["path"]: _caption(each) for each in shown}, threads, limits)


def write_scores_pages(folder: Path, report: dict[str, Any], tiles: list[Tile]) -> dict[str, str]:
    """Write scores.html, and return its pages as Markdown by key.

    Args:
        folder: of the file.
        report: the contents of reports/scores.json.
        tiles: from `tiles_of`.
    """
    pages = [_overview(report), _drift(report), _classes(report["classes"]), _photos(report, tiles), _bad(report)]
    write_page(folder / "scores.html", "Regraft: photos that were scored", pages)
    return {page.key: to_markdown(page) for page in pages}


def _overview(report: dict[str, Any]) -> Page:
    counts = report["counts"]
    rows = [[words, "the model does not say" if counts[key] is None else counts[key]] for key, words in _COUNTS.items()]
    days = [
        [each["day"], each["photos"], *(_of(each[name], each["photos"]) for name in ("unsure", "novel"))]
        for each in report["days"]
    ]
    has_drifted = bool(report["drift"]["warnings"])
    blocks: list[Block] = [
        *([Bold("The photos are not what production was trained on.")] if has_drifted else []),
        report["words"],
        f"Photos of {report['folder']}, by the model {report['model'][:12]}, {report['at']}. The table is "
        f"{report['output']}.",
        Table(["", "photos"], rows),
        Heading("By the day on which they came in"),
        Table(["day", "photos", "unsure", "novel"], days),
    ]
    return Page("scores", "What was scored", blocks)


def _drift(report: dict[str, Any]) -> Page:
    drift = report["drift"]
    blocks: list[Block] = [
        f"The latest {drift['photos']} photos, since {report['since'] or 'ever'}. Production was trained on "
        f"{drift['known']} of them, and the others count as {drift['groups']}, near-duplicates as one. "
        f"{drift['compared_with']}"
    ]
    rows = [
        [
            each["quantity"].replace("_", " "),
            each["photos"],
            each["words"].partition(": ")[2],
            f"{each['now']:.3f}",
            f"{each['limit']:.3f}",
            _sign(each),
        ]
        for each in drift["figures"]
    ]
    if rows:
        blocks += [Table(["", "photos", "found", "figure", "limit", ""], rows), _RULE]
    else:
        blocks.append("Too few photos to tell drift from chance.")
    if report["statistics"]:
        grey = "Shares of these photos. Grey outlines are the photos that production was trained on."
        blocks += [grey, Chart("histograms of image statistics", image_statistics_chart(report["statistics"]))]
    return Page("scores-drift", "Are they what production was trained on?", blocks)


def _classes(classes: list[dict[str, Any]]) -> Page:
    shown = classes[:_MOST_CLASSES]
    shares = {each["class"]: (each["share"], each["trained_share"]) for each in shown}
    rows = [
        [each["class"], each["photos"], *map(_share, (each["share"], each["trained_share"])), each["answered"]]
        for each in shown
    ]
    text = "Each photo counts for its most probable class, also where the model is unsure; the last column is without."
    if len(classes) > _MOST_CLASSES:
        text += f" The {_MOST_CLASSES} most frequent of {len(classes)}; all are in scores.json."
    header = ["class", "photos", "share", "in production's data", "named by the model"]
    chart = [Chart("shares of the classes", shares_chart(shares))] if shares else []
    return Page("scores-classes", "Classes", [*chart, text, Table(header, rows)])


def _photos(report: dict[str, Any], tiles: list[Tile]) -> Page:
    has_novelty = any(each["novelty"] is not None for each in report["to_look_at"])
    which = "the most novel first" if has_novelty else "those with the least certain class first"
    text = f"Of the latest photos that are still there, {which}."
    return Page("scores-photos", "Photos to look at", [text, Photos("photos to look at", [("", tiles)])])


def _bad(report: dict[str, Any]) -> Page:
    bad, count = report["bad"][:NAMED], report["counts"]["bad"]
    more = f" The first {len(bad)}; all are in the table." if count > NAMED else ""
    table = [Table(["file", "why"], [[each["path"], each["error"]] for each in bad])] if bad else []
    return Page("scores-bad", "Files that cannot be scored", [f"{count} files.{more}" if count else "None.", *table])


def _caption(photo: dict[str, Any]) -> str:
    probability = f"{photo['probability']:.0%}"
    named = f"{photo['label']} {probability}" if photo["class"] else f"unsure ({photo['label']} {probability})"
    return named if photo["novelty"] is None else f"{named}\nnovelty {photo['novelty']:.2f}"


def _sign(figure: dict[str, Any]) -> str:
    if not figure["has_moved"]:
        return "as before"
    return "note" if figure["severity"] == "note" else Bold("moved")


def _of(part: int | None, whole: int) -> str:
    return "-" if part is None or not whole else f"{part} ({part / whole:.1%})"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
