"""The morning page: what it says first, what it links to, and that nothing in it is obeyed."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from markdown_it import MarkdownIt

from regraft.production.run_history import Row
from regraft.reports.history_page import Production, history_page, reason_of, summary_of_week, to_do, trend_page
from regraft.reports.page import to_markdown
from tests.regraft.reports.test_hostile_names import NAMES, Elements, words_of

NOW = datetime(2026, 11, 26, 8, tzinfo=UTC)
FINE = Production("a" * 64, "2026-11-20T03:00:00+00:00", None)
BY_SETTING = "Undecided: who knows. Production stays (promote.when_undecided: auto)."


def night(number: int, name: str = "Promoted", **facts: object) -> Row:
    started = datetime(2026, 11, 26, 3, tzinfo=UTC) - timedelta(days=number)
    words = f"{name}: because of {number}. And more."
    return replace(Row(f"run-{number}", started, name, started + timedelta(minutes=2), reason=words), **facts)


def measured(number: int, **facts: object) -> Row:
    known: dict[str, Any] = {
        "accuracy": 0.93,
        "accuracy_low": 0.9,
        "accuracy_high": 0.95,
        "photos": 1200,
        "new": 12,
        "drift": 1.7,
    }
    known |= {"seconds": {"fine_tune": 100.0}, "model": "a" * 64, "champion": "a" * 64, "drift_warned": True}
    return night(number, **(known | facts))


def page(rows: list[Row], links: dict[str, str] | None = None) -> str:
    return history_page(rows, FINE, links or {}, NOW, b"drawn")


def test_the_first_screen_has_the_verdict_production_and_what_to_do() -> None:
    earlier = replace(measured(0), run="earlier", started=NOW - timedelta(hours=6))
    words = words_of(page([measured(1), earlier, night(0, "Failed", champion="a" * 64)])).partition("The week")[0]
    assert "✕ Failed Because of 0. And more." in words
    assert "Fine Accuracy 93.0% (90.0% to 95.0%) on test photos." in words
    assert "Put right what failed And more. Then regraft retrain goes on where it stopped." in words
    assert "In the 24 hours before it 02:00 ● Promoted: Because of 0" in words


@pytest.mark.parametrize(
    ("rows", "problem", "expected"),
    [
        ([measured(0)], None, "Nothing"),
        ([night(0, "Undecided", reason=BY_SETTING)], None, "Nothing"),
        ([night(n, "Undecided", reason=BY_SETTING) for n in (2, 1, 0)], None, "3 runs in a row are undecided"),
        ([night(2, "Undecided"), night(1, "Nothing new"), night(0, "Nothing new")], None, "Decide between two models"),
        ([night(0, "Waiting for approval")], None, "Approve it, or not"),
        ([measured(0)], "model.onnx is damaged.", "Repair production"),
        ([], None, "Start a first run"),
    ],
)
def test_what_a_person_has_to_do(rows: list[Row], problem: str | None, expected: str) -> None:
    assert to_do(rows, problem).title == expected


@pytest.mark.parametrize("name", NAMES[:4])
def test_words_of_a_run_bring_nothing_into_the_page(name: str) -> None:
    hostile = night(0, f"Failed{name}", reason=name, started_by=name, drift_of=name, drift=0.5, seconds={name: 1.0})
    text = page([hostile], {"run-0": "runs/run-0.html"})
    elements = Elements(text)
    assert not {"script", "svg", "iframe", "object", "link", "base"} & set(elements.tags())
    assert {attrs["href"] for tag, attrs in elements.found if tag == "a"} == {"runs/run-0.html"}
    assert not [name for _, attrs in elements.found for name in attrs if name.startswith("on") or name == "style"]
    assert not {"\x1b", "\u202e"} & set(text)
    tokens = MarkdownIt("commonmark").enable("table").parse(to_markdown(trend_page([hostile], b"drawn")))
    inline = [child.type for token in tokens for child in token.children or []]
    assert [kind for kind in inline if kind in ("image", "link_open", "html_inline")] == ["image"]


def test_a_reason_of_brackets_does_not_take_the_square_of_its_length() -> None:
    began = time.process_time()
    reason_of(night(1, reason="Promoted (" * 50_000))
    assert time.process_time() - began < 2


def test_hundreds_of_runs_stay_small_and_the_artifact_has_ten() -> None:
    rows = [measured(number) for number in range(700, 0, -1)]
    assert len(page(rows)) < 500_000
    assert "The last 120 runs" in page(rows)
    assert to_markdown(trend_page(rows, None)).count("| Promoted |") == 10


def test_the_week_counts_verdicts_names_undecided_runs_and_days_without_any() -> None:
    rows = [measured(12), night(6), night(5, "Undecided"), night(4, "Failed"), night(0, "Crashed")]
    assert summary_of_week([replace(row, champion="a" * 64) for row in rows], NOW).split("\n") == [
        "4 runs in the last seven days: 1 promoted, 1 undecided, 1 failed, 1 crashed.",
        "- 2026-11-21 03:00 UTC undecided: Because of 5",
        "In production for 12 days: aaaaaaaaaaaa, accuracy 93.0% (90.0% to 95.0%) when it was measured last.",
        "5 days without a run that did its work: 19 Nov, 22 Nov, 23 Nov, 24 Nov, 25 Nov.",
    ]
    assert summary_of_week([], NOW).endswith("No run is known.")
