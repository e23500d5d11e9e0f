"""What is said of runs: to whoever opens the morning page, in the artifact of a run, and once a week."""

import base64
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from regraft.errors import safe_text
from regraft.production.run_history import NOTHING_NEW, Row
from regraft.reports.history_chart import as_picture
from regraft.reports.history_marks import NAMES, shape_of
from regraft.reports.markdown import cell, table

_LISTED = 10  # rows and lines of a list
_CHART_RUNS = 50  # of the artifact
_MANY_UNDECIDED = 3
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ToDo:
    """Whether a person has to do something."""

    colour: str  # good | wait | bad
    title: str
    words: str


_CANDIDATES = "`regraft promote --candidates` lists it, `regraft promote --candidate SHA` accepts it."
_RERUN = "`regraft retrain` goes on where it stopped."
_TO_DO = {
    "Promoted with warnings": (
        "wait",
        "Read the warnings",
        "The new model is in production. If a warning matters, `regraft promote --rollback` goes back.",
    ),
    "Undecided": ("good", "Nothing", "The gate could not tell which model is better; the next photos may decide it."),
    "Waiting for approval": (
        "wait",
        "Approve it, or not",
        f"Answer in the Prefect UI, or later: {_CANDIDATES}",
    ),
    "Refused": (
        "wait",
        "Read why",
        "Production stays, so nothing is urgent. The report compares both models.",
    ),
    "Failed": ("bad", "Put right what failed", f"The sentence of the run says what to do. Then {_RERUN}"),
    "Crashed": ("wait", "Watch the next run", f"The process ended without a word. {_RERUN} If that crashes too, look "
                "at memory and at the log."),
    "Cancelled": ("wait", "Run it again", _RERUN),
}  # fmt: skip


def to_do(rows: Sequence[Row], problem: str | None) -> ToDo:
    """Return what a person has to do, from the rows, oldest first, and what is wrong with production."""
    if problem:
        words = f"{problem} `regraft promote --rollback` puts the last sound model back."
        return ToDo("bad", "Repair production", words)
    if not rows:
        return ToDo("wait", "Start a first run", "`regraft retrain`")
    names = [row.name for row in rows]
    # A run that found nothing new leaves open what the one before it left open.
    last = next((row for row in reversed(rows) if row.name != "Nothing new"), rows[-1])
    if last.name == "Undecided":
        if _asks_for_a_person(last):
            return ToDo("wait", "Decide between two models", f"The gate leaves this one to a person. {_CANDIDATES}")
        undecided = [name for name in names if name not in NOTHING_NEW]
        count = next((n for n, name in enumerate(reversed(undecided)) if name != "Undecided"), len(undecided))
        if count >= _MANY_UNDECIDED:
            words = "More test photos let the gate see smaller differences; or see promote.when_undecided."
            return ToDo("wait", f"{count} runs in a row are undecided", words)
    found = ToDo(*_TO_DO.get(last.name, ("good", "Nothing", "")))
    if last.name == "Failed" and last.reason:
        # An error says what was expected, what was found, and at its end what to do.
        return replace(found, words=f"{in_short(last.reason.strip().rpartition('. ')[2], 300)} Then {_RERUN}")
    return found


def _asks_for_a_person(row: Row) -> bool:
    """Whether an undecided model waits for a person: the gate names no setting then that decided in his place."""
    return "promote.when_undecided" not in row.reason


def reason_of(row: Row) -> str:
    """Return why a run ended as it did, without the verdict's name, which stands beside it."""
    words = re.sub(rf"{re.escape(row.name)}( \([^()]*\))?[:.]\s", "", safe_text(row.reason).strip(), count=1)
    return words[:1].upper() + words[1:]


def why(row: Row) -> str:
    """Return the reason in short; a run that found nothing new repeats that of another one after a colon."""
    words = reason_of(row)
    return in_short(words.partition(":")[0] if row.name in NOTHING_NEW else words)


def in_short(words: str, longest: int = 150) -> str:
    """Return the first sentence of a text, cut where it is too long."""
    first, _, rest = words.partition("\n")
    if first.endswith(":"):
        first = f"{first} {rest.strip()}"
    first = " ".join(first.partition(". ")[0].split())
    return first if len(first) <= longest else f"{first[:longest].rpartition(' ')[0] or first[:longest]} ..."


def minute(at: datetime) -> str:
    """Return a time as a person reads it."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


def percent(value: float | None) -> str:
    """Return a share as a person reads it, and nothing for none."""
    return "" if value is None else f"{value:.1%}"


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """Return a share with its interval."""
    return percent(value) if low is None or high is None else f"{percent(value)} ({low:.1%} to {high:.1%})"


def photos_of(row: Row) -> str:
    """Return the photos of a run and how many joined and left."""
    if row.photos is None:
        return ""
    moved = [f"{sign}{count:,}" for sign, count in (("+", row.new), ("-", row.gone)) if count]
    moved += [f"{row.relabelled:,} relabelled"] if row.relabelled else []
    return f"{row.photos:,}" + (f" ({', '.join(moved)})" if moved else "")


def duration_of(row: Row) -> str:
    """Return how long a run took."""
    if row.ended is None:
        return ""
    seconds = (row.ended - row.started).total_seconds()
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def trend_page(rows: Sequence[Row]) -> str:
    """Return the history in short as Markdown: the chart as a picture, and the last runs."""
    picture = base64.b64encode(as_picture(rows[-_CHART_RUNS:]).encode()).decode()
    header = ["when", "verdict", "new model's accuracy", "photos", "computed", "took", "why"]
    lines = [
        [
            f"{row.started:%d %b %H:%M}",
            row.name,
            percent(row.accuracy),
            photos_of(row),
            "" if row.computed is None else f"{row.computed:,}",
            duration_of(row),
            why(row),
        ]
        for row in reversed(rows[-_LISTED:])
    ]
    image = f"![accuracy, photos, seconds and drift of the last runs](data:image/svg+xml;base64,{picture})"
    marks: dict[str, list[str]] = {}
    for row in rows[-_CHART_RUNS:]:
        if row.name.lower() not in marks.setdefault(shape_of(row.name), []):
            marks[shape_of(row.name)].append(row.name.lower())
    legend = "; ".join(f"{shape}: {cell(', '.join(names))}" for shape, names in sorted(marks.items()))
    line = f"The line is the model in production. {legend.capitalize()}. Times are UTC."
    return "\n\n".join(["# Trend", image, line, table(header, [list(line) for line in lines])])


def summary_of_week(rows: Sequence[Row], now: datetime) -> str:
    """Return what a person should know of the seven days before `now`: plain text, a line per thought.

    Args:
        rows: oldest first, and older ones too, which tell how old the model in production is.
        now: UTC.
    """
    week = [row for row in rows if now - 7 * _DAY <= row.started <= now]
    counts = Counter(row.name for row in week)
    names = sorted(counts, key=lambda name: (NAMES.index(name) if name in NAMES else len(NAMES), name))
    told = ", ".join(f"{counts[name]} {safe_text(name).lower()}" for name in names) or "none"
    lines = [f"{_count(len(week), 'run')} in the last seven days: {told}.", *_undecided(week), _production(rows, now)]
    return "\n".join([*lines, _idle_days(rows, now)])


def _undecided(week: Sequence[Row]) -> list[str]:
    undecided = [row for row in week if row.name == "Undecided"]
    lines = [f"- {minute(row.started)} undecided: {why(row)}" for row in undecided[-_LISTED:]]
    more = len(undecided) - len(lines)
    return [*lines, f"- and {more} more, undecided before."] if more else lines


def _production(rows: Sequence[Row], now: datetime) -> str:
    known = [row for row in rows if row.champion]
    if not known:
        return "No model is in production, as far as the history tells."
    champion, since = known[-1].champion, known[-1].started
    accuracy = None
    for row in reversed(known):
        if row.champion != champion:
            break
        since, accuracy = row.started, accuracy or row.production
    days = (now - since) // _DAY
    age = f"for {_count(days, 'day')}" if days else "since today"
    how = f"accuracy {interval(*accuracy)} when it was measured last" if accuracy else "its accuracy was not measured"
    return f"In production {age}: {champion[:12] if champion else ''}, {how}."


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
