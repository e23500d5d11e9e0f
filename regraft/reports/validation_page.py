"""reports/validation.html: what validation found, with the photos that it names, on one page that needs no network."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from regraft.photos.images import Threads, load_rgb
from regraft.reports.html import gallery, write_page

_SHOWN = 12  # photos of each violated expectation
_SIDE = 160  # pixels of a thumbnail


def write_validation_page(
    path: Path, pages: list[str], report: dict[str, Any], manifest: pd.DataFrame, raw: Path, *, workers: int
) -> None:
    """Write the page.

    Args:
        path: of the page.
        pages: sections in words, as Markdown.
        report: what reports/validation.json holds.
        manifest: that was checked.
        raw: the data folder.
        workers: threads that decode; 0 means one per core.
    """
    # What could not be decoded once must not be tried again here: it is named in the tables and has no picture.
    readable = set(manifest.path[(manifest.verdict == "use") | manifest.conflict])
    galleries = []
    for result in report["expectations"]:
        shown = [name for name in result["paths"] if name in readable][:_SHOWN]
        if shown and not result["success"]:
            tiles = list(zip(Threads(workers).map(lambda name: _thumbnail(raw / name), shown), shown, strict=True))
            more = f"; the first {len(shown)}" if result["count"] > len(shown) else ""
            words = f"Found {result['found']}{more}. {result['advice']}"
            galleries.append(gallery(f"Expected: {result['expected']}", words, tiles))
    write_page(path, "Regraft: validation of the photos", [*pages, *galleries])


def _thumbnail(path: Path) -> np.ndarray:
    try:
        image = Image.fromarray(load_rgb(path, shorter_side=_SIDE))
    except (OSError, ValueError):  # it was removed or replaced a moment ago
        return np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    image.thumbnail((_SIDE, _SIDE))
    return np.asarray(image)
