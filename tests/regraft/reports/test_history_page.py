"""The morning page: what it says first, what it links to, and that nothing in it is obeyed."""

import base64
import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from markdown_it import MarkdownIt

from regraft.production.run_history import Row
from regraft.reports.history_chart import as_picture, chart
from regraft.reports.history_page import Production, history_page, told
from regraft.reports.history_words import reason_of, summary_of_week, to_do, trend_page
from tests.regraft.reports.test_hostile_names import NAMES, Elements

NOW = datetime(2026, 11, 26, 8, tzinfo=UTC)
FINE = Production("a" * 64, "2026-11-20T03:00:00+00:00", None)


def night(number: int, name: str = "Promoted", **facts: object) -> Row:
    started = datetime(2026, 11, 26, 3, tzinfo=UTC) - timedelta(days=number)
    words = f"{name}: because of {number}. And more."
    return replace(Row(f"run-{number}", started, name, started + timedelta(minutes=2), reason=words), **facts)


BY_SETTING = "Undecided: who knows. Production stays (promote.when_undecided: auto)."
MEASURED = {
    "accuracy": 0.93,
    "accuracy_low": 0.9,
    "accuracy_high": 0.95,
    "photos": 1200,
    "new": 12,
    "seconds": {"fine_tune": 100.0},
    "model": "a" * 64,
    "champion": "a" * 64,
    "drift": 1.7,
    "drift_warned": True,
}


def page(rows: Sequence[Row], production: Production = FINE, links: dict[str, str] | None = None) -> str:
    return history_page(rows, production, links or {}, NOW)


def words_of(page: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", page.partition("<body>")[2]).split()).replace(" :", ":")


def test_the_first_screen_has_the_verdict_production_and_what_to_do() -> None:
    words = words_of(page([night(1, **MEASURED), night(0, "Failed", champion="a" * 64)])).partition("The week")[0]
    assert "Failed Because of 0. And more." in words
    assert "Fine Accuracy 93.0% (90.0% to 95.0%) on test photos." in words
    assert "Put right what failed And more. Then regraft retrain goes on where it stopped." in words
    assert "In the 24 hours before it" not in words


def test_a_run_without_news_does_not_hide_the_night() -> None:
    earlier = replace(night(0, **MEASURED), run="earlier", started=NOW - timedelta(hours=6))
    words = words_of(page([earlier, night(0, "Already in production")]))
    assert "In the 24 hours before it 02:00 Promoted: Because of 0" in words


@pytest.mark.parametrize(
    ("rows", "production", "expected"),
    [
        ([night(0, **MEASURED)], None, "Nothing"),
        ([night(0, "Undecided", reason=BY_SETTING)], None, "Nothing"),
        ([night(n, "Undecided", reason=BY_SETTING) for n in (2, 1, 0)], None, "3 runs in a row are undecided"),
        ([night(0, "Undecided")], None, "Decide between two models"),
        ([night(2, "Undecided"), night(1, "Nothing new"), night(0, "Nothing new")], None, "Decide between two models"),
        ([night(1, "Failed"), night(0, "Already in production")], None, "Nothing"),
        ([night(0, "Waiting for approval")], None, "Approve it, or not"),
        ([night(0, **MEASURED)], "model.onnx is damaged.", "Repair production"),
        ([], None, "Start a first run"),
        ([night(0, "A name of tomorrow")], None, "Nothing"),
    ],
)
def test_what_a_person_has_to_do(rows: list[Row], production: str | None, expected: str) -> None:
    assert to_do(rows, production).title == expected


def test_every_run_has_a_column_that_tells_all_of_it_and_links_to_its_report_if_there_is_one() -> None:
    rows = [night(1, **MEASURED), night(0, "Crashed")]
    found = ElementTree.fromstring(chart(rows, {"run-1": "runs/run-1.html"}, told))
    xml = "{http://www.w3.org/2000/svg}"
    titles = [title.text or "" for title in found.iter(f"{xml}title")]
    assert len(titles) == 2
    assert "New model: 93.0% (90.0% to 95.0%)" in titles[0]
    assert "Drift: 1.70 of its limit, warned of" in titles[0]
    assert [link.get("href") for link in found.iter(f"{xml}a")] == ["runs/run-1.html"]


@pytest.mark.parametrize("name", NAMES)
def test_words_of_a_photo_bring_nothing_into_the_page(name: str) -> None:
    hostile = night(0, f"Failed{name}", reason=name, started_by=name, drift_of=name, drift=0.5, seconds={name: 1.0})
    text = page([hostile], links={"run-0": "runs/run-0.html"})
    elements = Elements(text)
    assert not {"script", "img", "iframe", "object", "link", "base"} & set(elements.tags())
    assert elements.tags().count("svg") < 12
    assert {attrs["href"] for tag, attrs in elements.found if tag == "a"} == {"runs/run-0.html"}
    assert not [name for _, attrs in elements.found for name in attrs if name.startswith("on") or name == "style"]
    assert "\x1b" not in text
    assert "\u202e" not in text
    renderer = MarkdownIt("commonmark").enable("table")
    renderer.validateLink = lambda url: True  # type: ignore[method-assign]
    tokens = renderer.parse(trend_page([hostile]))
    inline = [child for token in tokens for child in token.children or []]
    assert [child.type for child in inline if child.type in ("image", "link_open", "html_inline")] == ["image"]


@pytest.mark.parametrize("odd", [-5.0, 1e300, 0.0])
def test_odd_figures_are_drawn_inside_the_chart(odd: float) -> None:
    facts = dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high", "champion_accuracy", "drift"), odd)
    rows = [night(1, **facts, seconds={"x": odd}, photos=0), night(0, **MEASURED)]
    drawn = ElementTree.fromstring(as_picture(rows))
    heights = [float(each.get("y") or 0) for each in drawn.iter() if (each.get("y") or "").replace(".", "").isdigit()]
    assert heights
    assert max(heights) < 600


def test_a_reason_of_brackets_does_not_take_the_square_of_its_length() -> None:
    began = time.process_time()
    reason_of(night(1, reason="Promoted (" * 50_000))
    assert time.process_time() - began < 2


def test_hundreds_of_runs_stay_small() -> None:
    rows = [night(number, **MEASURED) for number in range(700, 0, -1)]
    assert len(page(rows)) < 1_200_000
    assert "The last 400 runs" in page(rows)


def test_the_trend_has_a_picture_of_its_own_and_ten_runs() -> None:
    text = trend_page([night(number, **MEASURED) for number in range(30, -1, -1)])
    picture = re.search(r"\(data:image/svg\+xml;base64,([^)]*)\)", text)
    assert picture
    assert ElementTree.fromstring(base64.b64decode(picture[1])).tag.endswith("svg")
    assert text.count("| Promoted |") == 10


def test_the_week_counts_verdicts_names_undecided_runs_and_days_without_any() -> None:
    rows = [night(12, **MEASURED), night(6), night(5, "Undecided"), night(4, "Failed"), night(0, "Crashed")]
    rows = [replace(row, champion="a" * 64) for row in rows]
    assert summary_of_week(rows, NOW).split("\n") == [
        "4 runs in the last seven days: 1 promoted, 1 undecided, 1 failed, 1 crashed.",
        "- 2026-11-21 03:00 UTC undecided: Because of 5",
        "In production for 12 days: aaaaaaaaaaaa, accuracy 93.0% (90.0% to 95.0%) when it was measured last.",
        "5 days without a run that did its work: 19 Nov, 22 Nov, 23 Nov, 24 Nov, 25 Nov.",
    ]
    assert summary_of_week([], NOW).endswith("No run is known.")
