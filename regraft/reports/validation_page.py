"""What validation found: pages about the photos, and reports/validation.html with the photos that it names.

The HTML page needs nothing but the data folder and the report, so that it is there when validation stops a run.
"""

import re
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.errors import RegraftError
from regraft.files import read_json
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads
from regraft.photos.inspectors import Inspectors
from regraft.reports.blocks import Chart, Page, Photos, Tile
from regraft.reports.charts import class_balance_chart, image_statistics_chart
from regraft.reports.expectations import NAMED, expectations_table
from regraft.reports.html import write_page
from regraft.reports.markdown import Bold, cell, table
from regraft.reports.sources import Sources

_SHOWN = 12  # photos of each violated expectation
_SIDE = 160  # pixels of a thumbnail


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
    with Inspectors(limits) as inspectors:  # the same processes for all of them: each takes a while to start
        names = set(chain.from_iterable(shown))
        drawn = photos.with_rows(photos.rows[photos.rows.path.isin(list(names))]).photos()
        pictures = threads.map(partial(_thumbnail, inspectors, photos), drawn)
        pixels = {photo.path: picture for photo, picture in zip(drawn, pictures, strict=True)}
    for result, of_result in zip(violated, shown, strict=True):
        tiles = [Tile(pixels[name], name) for name in of_result]
        if tiles:
            more = f"; the first {len(tiles)}" if result["count"] > len(tiles) else ""
            text = cell(f"Found {result['found']}{more}. {result['advice']}")
            key = f"photos-{re.sub('[^a-z0-9]+', '-', result['name'].lower())}"
            pages.append(Page(key, f"Expected: {result['expected']}", [text, Photos("offenders", [("", tiles)])]))
    write_page(path, "Regraft: validation of the photos", pages)


def _validation(report: dict[str, Any]) -> Page:
    files = report["files"]
    verdict = "The images can be trained on." if report["success"] else "**The images cannot be trained on.**"
    blocks: list[Any] = [
        f"{verdict} {files['use']} images are used, {files['quarantine']} are quarantined, {files['ignore']} files are "
        f"not images. Layout of the data folder: {report['layout']}.",
        expectations_table(report),
        "## Against the model in production",
        cell(report["compared_with"]),
    ]
    if report["drift"]:
        blocks.append(_drift(report["drift"]))
    if report["not_used"]:
        # Meant as images and lost, before what nobody meant as an image.
        not_used = sorted(report["not_used"], key=lambda row: row["verdict"] != "quarantine")
        named = [[row["path"], row["verdict"], row["reason"]] for row in not_used[:NAMED]]
        blocks += [
            f"## Not used: {len(report['not_used'])} (the first {len(named)}; all are in validation.json)",
            table(["file", "verdict", "why"], named),
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


def _drift(rows: list[dict[str, Any]]) -> str:
    """What moved since the model in production, and whether by more than chance and params.yaml allow."""
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
    return table(["", "photos", "against", "then and now", "stability index", "limit", ""], cells)


def _thumbnail(inspectors: Inspectors, photos: Dataset, photo: Photo) -> np.ndarray:
    try:
        with photos.file_of(photo) as file:
            picture = inspectors.thumbnail(file, side=_SIDE)
    except RegraftError:
        picture = None
    # It was removed or replaced a moment ago, or is out of reach.
    return np.full((_SIDE, _SIDE, 3), 255, np.uint8) if picture is None else picture
