"""The page about scored photos: it says what was found, whatever files and classes are called."""

from pathlib import Path
from typing import Any

import numpy as np

from regraft.reports.contact_sheet import Tile
from regraft.reports.scores_page import write_scores_pages
from tests.regraft.reports.test_hostile_names import NAMES, Elements

FIGURE = {
    "quantity": "novel",
    "photos": 40,
    "now": 0.5,
    "limit": 0.05,
    "words": "novel: half",
    "has_moved": True,
}
COUNTS = {"photos": 40, "new": 3, "computed": 2, "unsure": 5, "novel": None, "bad": 1, "skipped": 0, "gone": 0}


def _report(name: str = "red", **changes: Any) -> dict[str, Any]:
    drift = {"photos": 40, "known": 0, "groups": 39, "compared_with": name, "figures": [FIGURE], "warnings": [name]}
    photo = {"path": name, "sha256": "0" * 64, "class": None, "label": name, "probability": 0.4, "novelty": 0.7}
    return {
        "at": "2026-11-26 12:00 UTC",
        "since": None,
        "folder": name,
        "output": "build/scores.parquet",
        "model": "0" * 64,
        "words": f"3 of 40 photos in {name} are new.",
        "counts": COUNTS,
        "drift": drift,
        "classes": {name: 40},
        "bad": [{"path": name, "error": f"{name} is empty"}],
        "to_look_at": [photo],
    } | changes


def test_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    reports = [_report(name) for name in NAMES]
    together = {key: [row for each in reports for row in each[key]] for key in ("bad", "to_look_at")}
    together["classes"] = dict.fromkeys(NAMES, 40)
    tiles = [Tile(np.zeros((8, 8, 3), np.uint8), f"{name}\nnovelty 0.70") for name in NAMES]
    write_scores_pages(tmp_path, _report(" ".join(NAMES), **together), tiles)
    page = Elements((tmp_path / "scores.html").read_text())
    assert {"script", "svg", "iframe", "object", "link"} & set(page.tags()) == set()
    assert [tag for tag, attributes in page.found if any(name.startswith("on") for name in attributes)] == []
    assert all((attributes.get("src") or "data:image").startswith("data:image") for _, attributes in page.found)
    assert all((attributes.get("href") or "#").startswith("#") for _, attributes in page.found)


def test_it_says_what_moved_and_which_file_is_bad(tmp_path: Path) -> None:
    markdown = write_scores_pages(tmp_path, _report(), [])
    assert "The photos are not what production was trained on." in markdown["scores"]
    assert "| novel | 40 | half | 0.500 | 0.050 | **moved** |" in markdown["scores-drift"]
    assert "| red | red is empty |" in markdown["scores-bad"]
    assert "| red | 40 |" in markdown["scores"]
