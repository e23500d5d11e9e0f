"""The history of runs: history.html, the artifact `trend` of a run, and the message of the week.

The first screen of the page has the last run and its reason, the state of production, and what a person has to do.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import NamedTuple

from regraft.core.errors import safe_text
from regraft.production.run_history import NOTHING_NEW, Row
from regraft.reports.page import Block, Chart, Page, Table, render

CHART_RUNS = 120  # that the chart has a column of
_TABLE_RUNS, _OLDER_RUNS = 30, 270
_LISTED = 10  # runs of the artifact, and of the message
_SHORT = 240  # letters of a reason on the first screen
_MANY_UNDECIDED = 3
_DAY = timedelta(days=1)


class Verdict(NamedTuple):
    """How the name of a run's final state is shown."""

    colour: str  # a class of the style sheet: good | wait | bad | refused | quiet
    sign: str
    marker: str  # of matplotlib
    is_filled: bool = True


VERDICTS = {
    "Promoted": Verdict("good", "●", "o"),
    "Promoted with warnings": Verdict("good", "◉", "o", False),
    "Undecided": Verdict("wait", "◆", "D"),
    "Waiting for approval": Verdict("wait", "□", "s", False),
    "Not approved": Verdict("quiet", "◇", "D", False),
    "Refused": Verdict("refused", "▼", "v"),
    "Failed": Verdict("bad", "✕", "X"),
    "Crashed": Verdict("bad", "✶", "*"),
    "Cancelled": Verdict("quiet", "□", "s", False),
}  # in the order of a legend
OTHER = Verdict("quiet", "·", ".")

_CANDIDATES = "`regraft promote --candidates` lists it, `regraft promote --candidate SHA` accepts it."
_RERUN = "`regraft retrain` goes on where it stopped."
_TO_DO = {
    "Promoted with warnings": (
        "wait",
        "Read the warnings",
        "The new model is in production. If a warning matters, `regraft promote --rollback` goes back.",
    ),
    "Undecided": ("good", "Nothing", "The gate could not tell which model is better; the next photos may decide it."),
    "Waiting for approval": ("wait", "Approve it, or not", f"Answer in the Prefect UI, or later: {_CANDIDATES}"),
    "Refused": ("wait", "Read why", "Production stays, so nothing is urgent. The report compares both models."),
    "Failed": ("bad", "Put right what failed", f"The sentence of the run says what to do. Then {_RERUN}"),
    "Crashed": (
        "wait",
        "Watch the next run",
        f"The process ended without a word. {_RERUN} If that crashes too, look at memory and at the log.",
    ),
    "Cancelled": ("wait", "Run it again", _RERUN),
}


@dataclass(frozen=True, slots=True)
class Production:
    """What is in production when the page is written."""

    digest: str | None
    since: str | None  # ISO 8601, UTC
    problem: str | None  # why there is no sound model although there was one


@dataclass(frozen=True, slots=True)
class Box:
    """One of the three boxes of the first screen."""

    colour: str
    heading: str
    title: str
    words: str
    below: str = ""
    link: str | None = None

    @property
    def short(self) -> str:
        """The words, or of many the first sentence."""
        return self.words if len(self.words) <= _SHORT else _in_short(self.words, _SHORT)


@dataclass(frozen=True, slots=True)
class Line:
    """A run in a table."""

    when: str
    name: str
    colour: str
    sign: str
    link: str | None
    reason: str
    why: str
    accuracy: str
    photos: str
    computed: str
    took: str

    @classmethod
    def of(cls, row: Row, links: Mapping[str, str], when: str = "%Y-%m-%d %H:%M") -> "Line":
        """Return the line of a run; `links` are addresses of reports by run."""
        verdict, computed = VERDICTS.get(row.name, OTHER), "" if row.computed is None else f"{row.computed:,}"
        shown = (f"{row.started:{when}}", row.name, verdict.colour, verdict.sign, links.get(row.run), reason_of(row))
        return cls(*shown, _why(row), _percent(row.accuracy), _photos_of(row), computed, _duration_of(row))


def history_page(
    rows: Sequence[Row], production: Production, links: Mapping[str, str], now: datetime, chart: bytes | None
) -> str:
    """Return history.html.

    Args:
        rows: the runs, oldest first.
        production: as it is now.
        links: addresses of kept reports by run, relative to the page.
        now: UTC.
        chart: from `history_chart`; None where there is nothing to draw.
    """
    newest = [Line.of(row, links) for row in reversed(rows[-_TABLE_RUNS - _OLDER_RUNS :])]
    same_night = [row for row in rows[:-1] if row.started > rows[-1].started - _DAY]
    return render(
        "history.html",
        title="Regraft: history of runs",
        boxes=[_last(rows, links), _production(rows, production), to_do(rows, production.problem)],
        # A last run without news must not hide what came before it.
        same_night=[Line.of(row, links, "%H:%M") for row in reversed(same_night)],
        week=[line for line in summary_of_week(rows, now).split("\n") if not line.startswith("- ")],
        chart=chart,
        chart_title="The first run" if len(rows) == 1 else f"The last {len(drawn_rows(rows))} runs that had work",
        lines=newest[:_TABLE_RUNS],
        older=newest[_TABLE_RUNS:],
        written=_minute(now),
    )


def drawn_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the runs of the chart: a run that had nothing to do found out nothing, and needs no new chart."""
    return [row for row in rows if row.seconds or row.name not in NOTHING_NEW][-CHART_RUNS:]


def trend_page(rows: Sequence[Row], chart: bytes | None) -> Page:
    """Return the history in short: the chart, and the last runs."""
    lines = [Line.of(row, {}, "%d %b %H:%M") for row in reversed(rows[-_LISTED:])]
    header = ["when", "verdict", "new model's accuracy", "photos", "computed", "took", "why"]
    cells = [[each.when, each.name, each.accuracy, each.photos, each.computed, each.took, each.why] for each in lines]
    drawing: list[Block] = [Chart("accuracy, photos, time and drift of the last runs", chart)] if chart else []
    return Page("trend", "Trend", [*drawing, "Times are UTC.", Table(header, cells)])


def to_do(rows: Sequence[Row], problem: str | None) -> Box:
    """Return what a person has to do, from the rows, oldest first, and what is wrong with production."""
    heading, last = "Does a person have to do something?", _last_with_news(rows)
    if problem:
        words = f"{problem} `regraft promote --rollback` puts the last sound model back."
        return Box("bad", heading, "Repair production", words)
    if last is None:
        return Box("wait", heading, "Start a first run", "`regraft retrain`")
    colour, title, words = _TO_DO.get(last.name, ("good", "Nothing", ""))
    if last.name == "Failed" and last.reason:
        # An error says what was expected, what was found, and at its end what to do.
        words = f"{_in_short(last.reason.strip().rpartition('. ')[2], 300)} Then {_RERUN}"
    if last.name == "Undecided":
        if "promote.when_undecided" not in last.reason:  # the gate names the setting where it decided
            words = f"The gate leaves this one to a person. {_CANDIDATES}"
            return Box("wait", heading, "Decide between two models", words)
        names = [row.name for row in reversed(rows) if row.name not in NOTHING_NEW]
        if (count := len([*takewhile("Undecided".__eq__, names)])) >= _MANY_UNDECIDED:
            words = "More test photos let the gate see smaller differences; or see promote.when_undecided."
            return Box("wait", heading, f"{count} runs in a row are undecided", words)
    return Box(colour, heading, title, words)


def _last_with_news(rows: Sequence[Row]) -> Row | None:
    """Return the last run: one that found nothing new leaves open what the one before it left open."""
    return next((row for row in reversed(rows) if row.name != "Nothing new"), rows[-1] if rows else None)


def _last(rows: Sequence[Row], links: Mapping[str, str]) -> Box:
    if not rows:
        return Box("wait", "Last run", "No run yet", "")
    row = rows[-1]
    verdict = VERDICTS.get(row.name, OTHER)
    whose = "" if row.is_in_production else " of the candidate"
    figures = [
        f"{_percent(row.accuracy)} accuracy{whose}" if row.accuracy is not None else "",
        f"photos {_photos_of(row)}" if row.photos is not None else "",
        f"{row.computed:,} computed" if row.computed else "",
        _duration_of(row),
    ]
    colour, heading = verdict.colour, f"Last run, {_minute(row.started)}, by {row.started_by or 'hand'}"
    colour, title = "good" if row.name in NOTHING_NEW else colour, f"{verdict.sign} {row.name}"
    return Box(colour, heading, title, reason_of(row), " · ".join(filter(None, figures)), links.get(row.run))


def _production(rows: Sequence[Row], production: Production) -> Box:
    if production.problem:
        return Box("bad", "Production", "Damaged", production.problem)
    if production.digest is None:
        return Box("wait", "Production", "No model", "Services have nothing to read yet.")
    figures, _ = _of_champion(rows, production.digest)
    since = f", since {production.since[:16].replace('T', ' ')} UTC" if production.since else ""
    words = f"Accuracy {_interval(*figures)} on test photos. " if figures else "Not measured lately. "
    return Box("good", "Production", "Fine", f"{words}Model {production.digest[:12]}{since}.")


def _of_champion(rows: Sequence[Row], digest: str) -> tuple[tuple[float, float, float] | None, datetime | None]:
    """Return the latest figures of a model in production, and since when the runs know it there."""
    known = [row for row in reversed(rows) if row.champion]
    mine = [*takewhile(lambda row: row.champion == digest, known)]
    return next((row.production for row in mine if row.production), None), mine[-1].started if mine else None


def reason_of(row: Row) -> str:
    """Return why a run ended as it did, without the verdict's name, which stands beside it."""
    words = re.sub(rf"{re.escape(row.name)}( \([^()]*\))?[:.]\s", "", safe_text(row.reason).strip(), count=1)
    return words[:1].upper() + words[1:]


def _why(row: Row) -> str:
    """Return the reason in short; a run that found nothing new repeats that of another one after a colon."""
    words = reason_of(row)
    return _in_short(words.partition(":")[0] if row.name in NOTHING_NEW else words)


def _in_short(words: str, longest: int = 150) -> str:
    """Return the first sentence of a text, cut where it is too long."""
    first, _, rest = words.partition("\n")
    if first.endswith(":"):
        first = f"{first} {rest.strip()}"
    first = " ".join(first.partition(". ")[0].split())
    return first if len(first) <= longest else f"{first[:longest].rpartition(' ')[0] or first[:longest]} ..."


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def _photos_of(row: Row) -> str:
    """Return the photos of a run and how many joined and left."""
    if row.photos is None:
        return ""
    moved = [f"{sign}{count:,}" for sign, count in (("+", row.new), ("-", row.gone)) if count]
    moved += [f"{row.relabelled:,} relabelled"] if row.relabelled else []
    return f"{row.photos:,}" + (f" ({', '.join(moved)})" if moved else "")


def _duration_of(row: Row) -> str:
    if row.ended is None:
        return ""
    seconds = (row.ended - row.started).total_seconds()
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def summary_of_week(rows: Sequence[Row], now: datetime) -> str:
    """Return what a person should know of the seven days before `now`: plain text, a line per thought.

    Args:
        rows: oldest first, and older ones too, which tell how old the model in production is.
        now: UTC.
    """
    week = [row for row in rows if now - 7 * _DAY <= row.started <= now]
    counts = Counter(row.name for row in week)
    names = [*(name for name in VERDICTS if name in counts), *sorted(counts.keys() - VERDICTS.keys())]
    told = ", ".join(f"{counts[name]} {safe_text(name).lower()}" for name in names) or "none"
    undecided = [f"- {_minute(row.started)} undecided: {_why(row)}" for row in week if row.name == "Undecided"]
    more = [f"- and {len(undecided) - _LISTED} more, undecided before."] if len(undecided) > _LISTED else []
    runs = f"{_count(len(week), 'run')} in the last seven days: {told}."
    return "\n".join([runs, *undecided[-_LISTED:], *more, _champion_in_words(rows, now), _idle_days(rows, now)])


def _champion_in_words(rows: Sequence[Row], now: datetime) -> str:
    champion = next((row.champion for row in reversed(rows) if row.champion), None)
    if champion is None:
        return "No model is in production, as far as the history tells."
    figures, since = _of_champion(rows, champion)
    days = (now - since) // _DAY if since else 0
    age = f"for {_count(days, 'day')}" if days else "since today"
    how = f"accuracy {_interval(*figures)} when it was measured last" if figures else "its accuracy was not measured"
    return f"In production {age}: {champion[:12]}, {how}."


def _idle_days(rows: Sequence[Row], now: datetime) -> str:
    """Say on which of the seven days before today (UTC) no run did its work; before the first run there is none."""
    if not rows:
        return "No run is known."
    today, first = now.date(), min(row.started for row in rows).date()
    days = [day for number in range(7, 0, -1) if (day := today - number * _DAY) >= first]
    done = {row.started.date() for row in rows if row.is_finished}
    idle = [f"{day:%d %b}" for day in days if day not in done]
    if not days:
        return "The first run was today."
    if not idle:
        return "Every day had a run that did its work."
    return f"{_count(len(idle), 'day')} without a run that did its work: {', '.join(idle)}."


def _count(number: int, of: str) -> str:
    return f"{number} {of}{'' if number == 1 else 's'}"
