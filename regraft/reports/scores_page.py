"""What was scored: reports/scores.html, and the same as Markdown."""

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


def scores_pages(report: dict[str, Any], tiles: list[Tile]) -> list[Page]:
    """Return the pages.

    Args:
        report: what reports/scores.json holds.
        tiles: from `tiles_of`.
    """
    return [_overview(report), _drift(report), _classes(report), _photos(report, tiles), _bad(report)]


def tiles_of(report: dict[str, Any], folder: Path, count: int, threads: Threads, limits: DecodeLimits) -> list[Tile]:
    """Return thumbnails of the photos that a person should look at first; one that is gone by now is grey."""
    shown = report["to_look_at"][:count]
    rows = [(each["sha256"], each["path"], "", 0, "test", "") for each in shown]
    photos = Dataset(pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS), [], folder)
    return thumbnails(photos, {each["path"]: _caption(each) for each in shown}, threads, limits)


def write_scores_pages(folder: Path, report: dict[str, Any], tiles: list[Tile]) -> dict[str, str]:
    """Write scores.html, and return the pages as Markdown by key."""
    pages = scores_pages(report, tiles)
    write_page(folder / "scores.html", "Regraft: photos that were scored", pages)
    return {page.key: to_markdown(page) for page in pages}


def _overview(report: dict[str, Any]) -> Page:
    counts, drift = report["counts"], report["drift"]
    warnings = drift["warnings"]
    verdict = [Bold("The photos are not what production was trained on.")] if warnings else []
    novel = "the model does not say" if counts["novel"] is None else counts["novel"]
    rows = [
        ["photos that are there and scored", counts["photos"]],
        ["of them new in this run", counts["new"]],
        ["of them the model was run on", counts["computed"]],
        ["of which the model is unsure", counts["unsure"]],
        ["that are novel", novel],
        ["files that cannot be read", counts["bad"]],
        ["files that are no photos, and are left out", counts["skipped"]],
        ["photos that are gone, whose rows are kept", counts["gone"]],
    ]
    days = [
        [each["day"], each["photos"], _of(each["unsure"], each["photos"]), _of(each["novel"], each["photos"])]
        for each in report["days"]
    ]
    blocks: list[Block] = [
        *verdict,
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
    text = (
        f"The latest {drift['photos']} photos, since {report['since'] or 'ever'}. Production was trained on "
        f"{drift['known']} of them, and the others count as {drift['groups']}, near-duplicates as one. "
        f"{drift['compared_with']}"
    )
    rule = (
        "A limit is what chance seldom exceeds with so few photos, and at least what is worth a look. Statistics are "
        "compared class by class, as the model names the classes."
    )
    blocks: list[Block] = [text]
    if rows:
        blocks += [Table(["", "photos", "found", "figure", "limit", ""], rows), rule]
    else:
        blocks.append("Too few photos to tell drift from chance.")
    if report["statistics"]:
        grey = "Shares of these photos. Grey outlines are the photos that production was trained on."
        blocks += [grey, Chart("histograms of image statistics", image_statistics_chart(report["statistics"]))]
    return Page("scores-drift", "Are they what production was trained on?", blocks)


def _classes(report: dict[str, Any]) -> Page:
    classes = report["classes"]
    rows = [
        [each["class"], each["photos"], f"{each['share']:.1%}", _share(each["trained_share"]), each["answered"]]
        for each in classes[:_MOST_CLASSES]
    ]
    shares = {each["class"]: (each["share"], each["trained_share"]) for each in classes[:_MOST_CLASSES]}
    blocks: list[Block] = [Chart("shares of the classes", shares_chart(shares))] if shares else []
    text = "Each photo counts for its most probable class, also where the model is unsure; the last column is without."
    if len(classes) > _MOST_CLASSES:
        text += f" The {_MOST_CLASSES} most frequent of {len(classes)}; all are in scores.json."
    header = ["class", "photos", "share", "in production's data", "named by the model"]
    return Page("scores-classes", "Classes", [*blocks, text, Table(header, rows)])


def _photos(report: dict[str, Any], tiles: list[Tile]) -> Page:
    has_novelty = any(each["novelty"] is not None for each in report["to_look_at"])
    which = "the most novel first" if has_novelty else "those with the least certain class first"
    text = f"Of the latest photos that are still there, {which}."
    return Page("scores-photos", "Photos to look at", [text, Photos("photos to look at", [("", tiles)])])


def _bad(report: dict[str, Any]) -> Page:
    bad, count = report["bad"], report["counts"]["bad"]
    more = f" The first {min(NAMED, len(bad))}; all are in the table." if count > NAMED else ""
    rows = [[each["path"], each["error"]] for each in bad[:NAMED]]
    blocks: list[Block] = [
        f"{count} files.{more}" if count else "None.",
        *([Table(["file", "why"], rows)] if rows else []),
    ]
    return Page("scores-bad", "Files that cannot be scored", blocks)


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
