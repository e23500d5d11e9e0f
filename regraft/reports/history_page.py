"""history.html, the morning page: what happened last night and why, whether production is fine, and what to do.

Whatever stands in the history is data: it is shown as text, and a link leads to a kept report and nowhere else.
"""

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from regraft.errors import safe_text
from regraft.production.run_history import Row
from regraft.reports.document import document
from regraft.reports.history_chart import KINDS, chart
from regraft.reports.history_marks import NAMES, colour_of, icon
from regraft.reports.history_style import PAGE
from regraft.reports.history_words import (
    duration_of,
    in_short,
    interval,
    minute,
    percent,
    photos_of,
    reason_of,
    summary_of_week,
    to_do,
    why,
)

_CHART_RUNS = 400
_TABLE_RUNS, _OLDER_RUNS = 30, 270
_SHORT = 240  # letters of a reason on the first screen
_OTHERS = 4  # runs of the same night that are named
_NIGHT = timedelta(hours=24)
_ICON = '<svg class="icon history" viewBox="0 0 16 16" aria-hidden="true">'


@dataclass(frozen=True, slots=True)
class Production:
    """What is in production when the page is written."""

    digest: str | None
    since: str | None  # ISO 8601, UTC
    problem: str | None  # why there is no sound model although there was one


def history_page(rows: Sequence[Row], production: Production, links: Mapping[str, str], now: datetime) -> str:
    """Return the page.

    Args:
        rows: the runs, oldest first.
        production: as it is now.
        links: addresses of kept reports by run, relative to the page.
        now: UTC.
    """
    shown = rows[-_CHART_RUNS:]
    body = [
        f'<div class="screen">{_last(rows, links)}{_production(rows, production)}{_to_do(rows, production)}</div>',
        _others(rows, links),
        _week(rows, now),
    ]
    if rows:
        title = "The first run" if len(rows) == 1 else f"The last {len(shown)} runs"
        body += [
            f'<section><h2>{title}</h2><div class="scroll">{chart(shown, links, told)}</div>',
            f"{_legend(shown)}</section>",
            f"<section><h2>Run by run</h2>{_table(rows, links)}</section>",
        ]
    body.append(f'<p class="muted">Written {minute(now)}. Times are UTC.</p>')
    return document("Regraft: history of runs", "\n".join(body), PAGE)


def told(row: Row) -> str:
    """Return all that is said of a run under the pointer, as text."""
    lines = [f"{minute(row.started)}  {row.name}", reason_of(row)]
    if row.accuracy is not None:
        photos = f" on {row.test_photos:,} test photos" if row.test_photos else ""
        lines.append(f"New model: {interval(row.accuracy, row.accuracy_low, row.accuracy_high)}{photos}")
    if row.champion_accuracy is not None:
        lines.append(f"In production before: {interval(row.champion_accuracy, row.champion_low, row.champion_high)}")
    if row.photos is not None:
        lines.append(f"Photos: {photos_of(row)} in {row.classes or '?'} classes; {row.quarantined or 0} quarantined")
    if row.computed is not None:
        lines.append(f"Backbone: {row.computed:,} computed, {row.from_store or 0:,} from the store")
    if row.drift is not None:
        warned = "warned of" if row.drift_warned else "within its limit" if row.drift <= 1 else "noted"
        lines.append(f"Drift: {row.drift:.2f} of its limit, {warned} ({row.drift_of})")
    if row.warnings:
        lines.append(f"{row.warnings} warning(s)")
    if took := duration_of(row):
        slow = sorted(row.seconds.items(), key=lambda item: -item[1])[:3]
        named = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in slow if seconds >= 1)
        lines.append(f"Took {took}" + (f" ({named})" if named else ""))
    return "\n".join(line for line in lines if line)


def _last(rows: Sequence[Row], links: Mapping[str, str]) -> str:
    if not rows:
        return _box("wait", "Last run", "No run yet", "")
    row = rows[-1]
    figures = [
        f"{percent(row.accuracy)} accuracy{'' if row.is_in_production else ' of the candidate'}"
        if row.accuracy is not None
        else "",
        photos_of(row) and "photos " + photos_of(row),
    ]
    figures += [f"{row.computed:,} computed" if row.computed else "", duration_of(row)]
    facts = html.escape(" · ".join(figure for figure in figures if figure))
    report = f' <a href="{html.escape(links[row.run])}">Report</a>' if row.run in links else ""
    when = f"Last run, {minute(row.started)}, by {row.started_by or 'hand'}"
    return _box(
        _box_colour(row.name), when, row.name, reason_of(row), f'<p class="muted">{facts}{report}</p>', icon(row.name)
    )


def _production(rows: Sequence[Row], production: Production) -> str:
    if production.problem:
        return _box("bad", "Production", "Damaged", production.problem)
    if production.digest is None:
        return _box("wait", "Production", "No model", "Services have nothing to read yet.")
    figures = None
    for row in reversed(rows):
        if row.champion == production.digest and row.production:
            figures = row.production
            break
        if row.champion not in (None, production.digest):
            break
    since = f", since {_time(production.since)}" if production.since else ""
    words = f"Accuracy {interval(*figures)} on test photos. " if figures else "Not measured lately. "
    return _box("good", "Production", "Fine", f"{words}Model {production.digest[:12]}{since}.")


def _to_do(rows: Sequence[Row], production: Production) -> str:
    found = to_do(rows, production.problem)
    return _box(found.colour, "Does a person have to do something?", found.title, found.words)


def _box(colour: str, heading: str, title: str, words: str, below: str = "", picture: str = "") -> str:
    text = f"<p>{_text(words)}</p>" if words else ""
    if len(words) > _SHORT:
        short = in_short(words, _SHORT)
        text = f"<p>{_text(short)}</p><details><summary>All of it</summary><p>{_text(words)}</p></details>"
    return (
        f'<div class="verdict {colour}"><h2>{_text(heading)}</h2><strong>{picture}{_text(title)}</strong>{text}{below}'
        "</div>"
    )


def _others(rows: Sequence[Row], links: Mapping[str, str]) -> str:
    """The other runs of the night: a last one without news must not hide what came before it."""
    if not rows:
        return ""
    others = [row for row in rows[:-1] if row.started > rows[-1].started - _NIGHT]
    lines = []
    for row in reversed(others[-_OTHERS:]):
        name = _linked(row, links, f"{icon(row.name)}{_text(row.name)}")
        lines.append(f"<li>{row.started:%H:%M} {name}: {_text(why(row))}</li>")
    more = f"<li>and {len(others) - _OTHERS} more</li>" if len(others) > _OTHERS else ""
    return f'<h3>In the 24 hours before it</h3><ul class="other">{"".join(lines)}{more}</ul>' if lines else ""


def _week(rows: Sequence[Row], now: datetime) -> str:
    if not rows:
        return ""
    told = [line for line in summary_of_week(rows, now).split("\n") if not line.startswith("- ")]  # the table has them
    lines = "<br>".join(_text(line) for line in told)
    return f'<h3>The week</h3><p class="muted">{lines}</p>'


def _legend(rows: Sequence[Row]) -> str:
    counts = Counter(row.name for row in rows)
    names = [*(name for name in NAMES if counts[name]), *sorted(name for name in counts if name not in NAMES)]
    verdicts = "".join(f"<span>{icon(name)}{_text(name)} {counts[name]}</span>" for name in names)
    kinds = "".join(
        f"<span>{_ICON}<rect class='k{number}' x='2' y='2' width='12' height='12'/></svg>{name}</span>"
        for number, name in enumerate(KINDS)
    )
    verdicts += f"<span>{_ICON}<path class='champion' d='M0 8h16'/></svg>model in production</span>"
    return f'<div class="legend">{verdicts}</div><div class="legend">Time: {kinds}</div>'


def _table(rows: Sequence[Row], links: Mapping[str, str]) -> str:
    newest = list(reversed(rows[-_TABLE_RUNS - _OLDER_RUNS :]))
    first, older = newest[:_TABLE_RUNS], newest[_TABLE_RUNS:]
    more = (
        f"<details><summary>{len(older)} runs before these</summary>{_lines(older, links)}</details>" if older else ""
    )
    return _lines(first, links) + more


def _lines(rows: Sequence[Row], links: Mapping[str, str]) -> str:
    heads = ("When", "Verdict", "Why", "New model's accuracy", "Photos", "Computed", "Took")
    lines = "\n".join(_line(row, links) for row in rows)
    head = "".join(f"<th>{head}</th>" for head in heads)
    return f'<div class="wide runs"><table><thead><tr>{head}</tr></thead><tbody>\n{lines}</tbody></table></div>'


def _line(row: Row, links: Mapping[str, str]) -> str:
    name = _linked(row, links, f"{icon(row.name)}{_text(row.name)}")
    computed = "" if row.computed is None else f"{row.computed:,}"
    reason = reason_of(row)
    figures = (("accuracy", percent(row.accuracy)), ("photos", photos_of(row)), ("computed", computed))
    cells = "".join(
        f'<td class="number"{f" data-of={of!r}" if text else ""}>{_text(text)}</td>' for of, text in figures
    )
    return (
        f'<tr><td class="when">{row.started:%Y-%m-%d %H:%M}</td><td class="of">{name}</td>'
        f'<td class="why" title="{html.escape(safe_text(reason))}">{_text(why(row))}</td>{cells}'
        f'<td class="number">{_text(duration_of(row))}</td></tr>'
    )


def _linked(row: Row, links: Mapping[str, str], text: str) -> str:
    return f'<a href="{html.escape(links[row.run])}">{text}</a>' if row.run in links else text


def _box_colour(name: str) -> str:
    colour = colour_of(name).split()[-1]
    return {"warned": "wait", "quiet": "good"}.get(colour, colour) if name != "Cancelled" else "quiet"


def _time(at: str) -> str:
    return at[:16].replace("T", " ") + " UTC"


def _text(text: str) -> str:
    """A text as HTML shows it: what stands between backticks as code, letters that a page would obey as numbers."""
    parts = html.escape(safe_text(text)).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
