"""The scored photos: reports/scores.html, and the same as Markdown."""

from pathlib import Path
from typing import Any

import pandas as pd

from regraft.photos.dataset import COLUMNS, Dataset
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads
from regraft.reports.contact_sheet import Tile
from regraft.reports.page import Block, Bold, Heading, Page, Photos, Table, to_markdown, write_page
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
    pages = [_overview(report), _drift(report), _photos(report, tiles), _bad(report)]
    write_page(folder / "scores.html", "Regraft: photos that were scored", pages)
    return {page.key: to_markdown(page) for page in pages}


def _overview(report: dict[str, Any]) -> Page:
    counts = report["counts"]
    rows = [[words, "the model does not say" if counts[key] is None else counts[key]] for key, words in _COUNTS.items()]
    blocks: list[Block] = [
        *([Bold("The photos are not what production was trained on.")] if report["drift"]["warnings"] else []),
        report["words"],
        f"Photos of {report['folder']}, by the model {report['model'][:12]}, {report['at']}. The table is "
        f"{report['output']}.",
        Table(["", "photos"], rows),
        Heading("The most probable classes of the latest photos"),
        Table(["class", "photos"], [[name, photos] for name, photos in [*report["classes"].items()][:_MOST_CLASSES]]),
    ]
    return Page("scores", "What was scored", blocks)


def _drift(report: dict[str, Any]) -> Page:
    drift = report["drift"]
    rows = [
        [
            each["quantity"],
            each["photos"],
            each["words"].partition(": ")[2],
            f"{each['now']:.3f}",
            f"{each['limit']:.3f}",
            Bold("moved") if each["has_moved"] else "as before",
        ]
        for each in drift["figures"]
    ]
    blocks: list[Block] = [
        f"The latest {drift['photos']} photos, since {report['since'] or 'ever'}. Production was trained on "
        f"{drift['known']} of them, and the others count as {drift['groups']}, near-duplicates as one. "
        f"{drift['compared_with']}",
        Table(["", "photos", "found", "figure", "limit", ""], rows)
        if rows
        else "Too few photos, or score.drift is off.",
    ]
    return Page("scores-drift", "Are they what production was trained on?", blocks)


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
