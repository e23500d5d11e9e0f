"""The chart of the history: accuracy with intervals and verdicts, photos, seconds by kind and drift, a column per run.

Drawn as SVG by hand: a run with nothing to do draws it too, and matplotlib alone takes a second to import. Every run
has the same width, whenever it was, so ten runs of an afternoon can be told apart; where a day or more is without any
run a dashed line says so. The newest run is on the right, and so is the scale.
"""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar

from regraft.errors import printable
from regraft.production.run_history import NOTHING_NEW, Row
from regraft.reports.history_marks import colour_of, mark
from regraft.reports.history_scales import Panel, readable_seconds, steps, time_steps
from regraft.reports.history_style import PICTURE

KINDS = {
    "data": ("record_data", "record_code", "validate_data", "preprocess"),
    "features": ("cache_features", "check_features"),
    "training": ("train_head", "choose_base", "train_base", "fine_tune"),
    "export and test": ("export_onnx", "quantise", "evaluate"),
    "gate and the rest": (),
}  # of the seconds, with the stages of each
_WIDEST, _NARROWEST = 56.0, 6.0  # pixels per run
_FULL, _NARROW, _LEAST = 950.0, 600.0, 340.0  # pixels that the runs share: on a page, in a picture, and at least
_LEFT, _RIGHT = 10.0, 64.0
_GAP = timedelta(hours=36)
_HEIGHTS = {"accuracy": 190.0, "photos": 56.0, "seconds": 76.0, "drift": 56.0}
_STRIP, _HEAD, _FOOT = 26.0, 26.0, 24.0  # below the accuracies, above each panel, below all
_MOST_DRIFT = 3.0
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where things are."""

    rows: Sequence[Row]
    slot: float
    width: float
    panels: dict[str, Panel]
    height: float

    def x(self, place: int) -> float:
        """The middle of a run's column."""
        return self.width - _RIGHT - (len(self.rows) - place - 0.5) * self.slot

    def spans(self, values: Sequence[_T | None]) -> list[tuple[float, float, _T]]:
        """From where to where each known value holds: from its run's column on, until another one is known."""
        known = [(self.x(place) - self.slot / 2, value) for place, value in enumerate(values) if value is not None]
        ends = [*(start for start, _ in known[1:]), self.width - _RIGHT]
        return [(start, end, value) for (start, value), end in zip(known, ends, strict=False)]


def chart(rows: Sequence[Row], links: Mapping[str, str], told: Callable[[Row], str]) -> str:
    """Return the chart as an element of a page, coloured by `history_style.PAGE`.

    Args:
        rows: the runs, oldest first.
        links: addresses of reports by run.
        told: what is said of a run when the pointer is over it, as text.
    """
    plan = _plan(rows, _FULL)
    hits = "\n".join(_hit(plan, place, links.get(row.run), told(row)) for place, row in enumerate(rows))
    return _svg(plan, hits)


def as_picture(rows: Sequence[Row]) -> str:
    """Return the chart as a file of its own, dark on white."""
    return _svg(_plan(rows, _NARROW), "", f'<style>{PICTURE}</style><rect width="100%" height="100%" fill="#ffffff"/>')


def _plan(rows: Sequence[Row], full: float) -> _Plan:
    slot = min(_WIDEST, max(_NARROWEST, full / max(1, len(rows))))
    width = max(_LEAST, slot * len(rows)) + _LEFT + _RIGHT
    panels, top = {}, 0.0
    for name, height in _HEIGHTS.items():
        panels[name] = Panel(top + _HEAD, height, _LEFT, width - _RIGHT)
        top += _HEAD + height + (_STRIP if name == "accuracy" else 0.0)
    return _Plan(rows, slot, width, panels, top + _FOOT)


def _svg(plan: _Plan, hits: str, before: str = "") -> str:
    parts = [_gaps(plan), _accuracy(plan), _photos(plan), _seconds(plan), _drift(plan), _days(plan), hits]
    size = f'width="{plan.width:.0f}" height="{plan.height:.0f}" viewBox="0 0 {plan.width:.0f} {plan.height:.0f}"'
    label = f"Accuracy, photos, seconds and drift of {len(plan.rows)} runs"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="history" {size} role="group" aria-label="{label}">{before}'
        + "\n".join(part for part in parts if part)
        + "</svg>"
    )


def _hit(plan: _Plan, place: int, link: str | None, told: str) -> str:
    """The column of a run: what it says under the pointer, and where a click leads."""
    title = html.escape("\n".join(printable(line) for line in told.split("\n")))
    x = plan.x(place) - plan.slot / 2
    area = (
        f'<rect class="hit" x="{x:.1f}" y="0" width="{plan.slot:.1f}" height="{plan.height:.0f}">'
        f"<title>{title}</title></rect>"
    )
    return f'<a href="{html.escape(link)}">{area}</a>' if link else area


def _accuracy(plan: _Plan) -> str:
    panel, values = plan.panels["accuracy"], []
    for row in plan.rows:
        own = (row.accuracy, row.accuracy_low, row.accuracy_high)
        values += [value for value in (*own, *(row.production or ())) if value is not None]
    low, high = (max(0.0, min(values)), min(1.0, max(values))) if values else (0.0, 1.0)
    margin = max(0.01, 0.06 * (high - low))
    scale = panel.scale(max(0.0, low - margin), min(1.0, high + margin))
    lines = [panel.title("Accuracy on test photos, with 95 % intervals")]
    lines += [panel.grid(scale(tick), f"{tick:.4g}") for tick in steps(scale.low, scale.high, 4)]
    lines.append(_champion(plan, scale))
    radius = max(3.0, min(6.5, 0.46 * plan.slot))
    for place, row in enumerate(plan.rows):
        x = plan.x(place)
        if row.accuracy is None:
            lines.append(mark(row.name, x, panel.bottom + _STRIP / 2 + 4, radius))
            continue
        if row.name not in NOTHING_NEW and row.accuracy_low is not None and row.accuracy_high is not None:
            ends = f'y1="{scale(row.accuracy_low):.1f}" y2="{scale(row.accuracy_high):.1f}"'
            colour = colour_of(row.name)
            lines.append(f'<line class="mark {colour} interval" x1="{x:.1f}" x2="{x:.1f}" {ends}/>')
        lines.append(mark(row.name, x, scale(row.accuracy), radius))
    return "\n".join(lines)


def _champion(plan: _Plan, scale: Callable[[float], float]) -> str:
    """The model in production: a line through what was measured, and its interval around it."""
    spans = plan.spans([row.production for row in plan.rows])
    if not spans:
        return ""
    bands = "".join(
        f'<rect class="band" x="{start:.1f}" width="{end - start:.1f}" y="{scale(figures[2]):.1f}" '
        f'height="{max(0.0, scale(figures[1]) - scale(figures[2])):.1f}"/>'
        for start, end, figures in spans
    )
    points = " ".join(f"{x:.1f},{scale(figures[0]):.1f}" for start, end, figures in spans for x in (start, end))
    return f'{bands}<polyline class="champion" points="{points}"/>'


def _photos(plan: _Plan) -> str:
    panel = plan.panels["photos"]
    spans = plan.spans([row.photos for row in plan.rows])
    title = panel.title("Photos; joined above, gone below")
    if not spans:
        return title
    least, most = min(count for *_, count in spans), max(count for *_, count in spans)
    margin = max(1.0, 0.15 * (most - least))
    scale = panel.scale(least - margin, most + margin)
    ticks = dict.fromkeys((most, least))
    lines = [title, *(panel.grid(scale(tick), f"{tick:,}") for tick in ticks)]
    points = " ".join(f"{x:.1f},{scale(count):.1f}" for start, end, count in spans for x in (start, end))
    lines.append(f'<polyline class="photos" points="{points}"/>')
    width = max(2.0, min(8.0, 0.5 * plan.slot))
    for place, row in enumerate(plan.rows):
        for count, colour, y in ((row.new, "new", panel.top - 2), (row.gone, "gone", panel.bottom - 4)):
            if count:
                x = plan.x(place) - width / 2
                lines.append(f'<rect class="{colour}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="5"/>')
    return "\n".join(lines)


def _seconds(plan: _Plan) -> str:
    panel = plan.panels["seconds"]
    stacks = [seconds_by_kind(row) for row in plan.rows]
    totals = sorted(sum(stack) for stack in stacks)
    # One long night must not make all others invisible: what is far above the rest is cut, and has a point.
    usual = totals[int(0.9 * (len(totals) - 1))] if totals else 0.0
    most = min(totals[-1], 3 * usual) if totals and usual else (totals[-1] if totals else 0.0)
    scale = panel.scale(0.0, max(1.0, most))
    lines = [panel.title("Time")]
    lines += [panel.grid(scale(tick), readable_seconds(tick)) for tick in time_steps(scale.high)]
    width = max(2.0, min(30.0, 0.7 * plan.slot))
    for place, stack in enumerate(stacks):
        x, below = plan.x(place) - width / 2, 0.0
        for kind, seconds in enumerate(stack):
            y, height = scale(min(below + seconds, scale.high)), 0.0
            height = scale(min(below, scale.high)) - y
            below += seconds
            if height > 0.05:
                lines.append(
                    f'<rect class="k{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
                )
        if below > scale.high:
            tip = f"{x:.1f},{panel.top:.1f} {x + width:.1f},{panel.top:.1f} {x + width / 2:.1f},{panel.top - 5:.1f}"
            lines.append(f'<polygon class="calm" points="{tip}"/>')
    return "\n".join(lines)


def seconds_by_kind(row: Row) -> list[float]:
    """Return the seconds of a run by `KINDS`; what belongs to no stage of theirs is the last one's."""
    found = [0.0] * len(KINDS)
    of_stage = {stage: kind for kind, stages in enumerate(KINDS.values()) for stage in stages}
    for stage, seconds in row.seconds.items():
        found[of_stage.get(stage, len(KINDS) - 1)] += max(0.0, seconds) if math.isfinite(seconds) else 0.0
    return found


def _drift(plan: _Plan) -> str:
    panel = plan.panels["drift"]
    figures = [row.drift for row in plan.rows if row.drift is not None]
    scale = panel.scale(0.0, min(_MOST_DRIFT, max([1.3, *figures])))
    lines = [panel.title("Drift: the largest figure as a multiple of its limit")]
    lines.append(f'<line class="limit" x1="{panel.left}" x2="{panel.right}" y1="{scale(1):.1f}" y2="{scale(1):.1f}"/>')
    lines.append(panel.label(scale(1), "limit"))
    width = max(2.0, min(30.0, 0.7 * plan.slot))
    for place, row in enumerate(plan.rows):
        if row.drift is not None:
            y = scale(min(max(0.0, row.drift), scale.high))
            colour = "warned-of" if row.drift_warned else "calm"
            size = f'width="{width:.1f}" height="{panel.bottom - y:.1f}"'
            lines.append(f'<rect class="{colour}" x="{plan.x(place) - width / 2:.1f}" y="{y:.1f}" {size}/>')
    return "\n".join(lines)


def _gaps(plan: _Plan) -> str:
    lines = []
    for place, (before, after) in enumerate(pairwise(plan.rows)):
        pause = after.started - before.started
        if pause > _GAP:
            x, days = plan.x(place) + plan.slot / 2, pause / timedelta(days=1)
            lines.append(f'<line class="gap" x1="{x:.1f}" x2="{x:.1f}" y1="{_HEAD}" y2="{plan.height - _FOOT:.0f}"/>')
            if plan.slot > 4 * _NARROWEST:
                y = plan.panels["accuracy"].bottom + _STRIP / 2
                lines.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{days:.0f} days</text>')
    return "\n".join(lines)


def _days(plan: _Plan) -> str:
    """Dates below the runs, as many as have room."""
    lines, free = [], plan.width
    for place in range(len(plan.rows) - 1, -1, -1):  # the newest one has its date in any case
        day = plan.rows[place].started.date()
        if place and plan.rows[place - 1].started.date() == day:
            continue
        x = plan.x(place)
        if x + 20 < free and x > 16:
            lines.append(f'<text x="{x:.1f}" y="{plan.height - 8:.1f}" text-anchor="middle">{day:%d %b}</text>')
            free = x - 26
    return "\n".join(lines)
