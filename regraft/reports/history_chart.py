"""The chart of the history: accuracy, photos, time and drift, one column a run, the newest on the right."""

import math
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from regraft.production.run_history import Row
from regraft.reports.charts import BLUE, GREY, ORANGE, canvas, label
from regraft.reports.history_page import OTHER, VERDICTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {
    "data": ("record_data", "record_code", "validate_data", "preprocess"),
    "features": ("cache_features", "check_features"),
    "training": ("train_head", "choose_base", "train_base", "fine_tune"),
    "export and test": ("export_onnx", "quantise", "evaluate"),
    "gate and the rest": (),
}  # of the seconds, with the stages of each
_COLOURS = {"good": "#2da44e", "wait": "#bf8700", "bad": "#e5484d", "refused": "#9a6ef5", "quiet": GREY}
_OF_KINDS = (BLUE, "#79c0ff", "#bf8700", "#9a6ef5", GREY)
_GAP = timedelta(hours=36)
_MOST_DATES = 12
_MOST_DRIFT = 3.0


def history_chart(rows: Sequence[Row]) -> bytes:
    """Draw runs, oldest first, as PNG."""
    with canvas(10, 7) as (figure, png):
        panels = figure.subplots(4, 1, sharex=True, height_ratios=(5, 1.5, 2, 1.5))
        for axes, draw in zip(panels, (_draw_accuracy, _draw_photos, _draw_seconds, _draw_drift), strict=True):
            draw(axes, rows)
            axes.yaxis.tick_right()
            axes.grid(axis="y", color=GREY, alpha=0.2)
            for place, (before, after) in enumerate(pairwise(rows)):
                if after.started - before.started > _GAP:  # a day or more without any run
                    axes.axvline(place + 0.5, color=GREY, linestyle=":", linewidth=1)
        dates = [row.started.date() for row in rows]
        days = [place for place, date in enumerate(dates) if date not in dates[:place]]
        days = days[:: max(1, math.ceil(len(days) / _MOST_DATES))]
        panels[-1].set_xticks(days, [f"{dates[place]:%d %b}" for place in days])
        panels[-1].set_xlim(-0.6, max(len(rows), 8) - 0.4)
    return png.getvalue()


def _draw_accuracy(axes: "Axes", rows: Sequence[Row]) -> None:
    places, production = np.arange(len(rows)), _held([row.production for row in rows])
    axes.fill_between(places, production[1], production[2], step="mid", color=BLUE, alpha=0.13, linewidth=0)
    axes.step(places, production[0], where="mid", color=BLUE, linewidth=1.5, label="model in production")
    names = [*VERDICTS, *sorted({row.name for row in rows} - VERDICTS.keys())]
    for name in names:
        verdict, mine = VERDICTS.get(name, OTHER), [(place, row) for place, row in enumerate(rows) if row.name == name]
        if not mine:
            continue
        colour = _COLOURS[verdict.colour]
        style = {"marker": verdict.marker, "s": 45 if verdict is not OTHER else 25, "linewidths": 1.6, "zorder": 3}
        style |= {"edgecolors": colour, "facecolors": colour if verdict.is_filled else "none"}
        known = [(place, row) for place, row in mine if row.accuracy is not None]
        for place, row in known:
            if row.accuracy_low is not None and row.accuracy_high is not None:
                ends = np.clip([row.accuracy_low, row.accuracy_high], 0, 1)
                axes.plot([place, place], ends, color=colour, alpha=0.55, linewidth=1.2)
        heights = np.clip([float(row.accuracy or 0) for _, row in known], 0, 1)
        axes.scatter([place for place, _ in known], heights, label=f"{label(name)} {len(mine)}", **style)
        # Runs without an accuracy stand on the floor.
        floor = [place for place, row in mine if row.accuracy is None]
        axes.scatter(floor, [0.04] * len(floor), transform=axes.get_xaxis_transform(), **style)
    axes.set_title("Accuracy on test photos, with 95 % intervals", loc="left", fontsize=10)
    low, high = axes.get_ylim()
    axes.set_ylim(max(-0.05, low - 0.12 * (high - low)), min(1.02, high))
    axes.figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)


def _draw_photos(axes: "Axes", rows: Sequence[Row]) -> None:
    photos = _held([None if row.photos is None else (float(row.photos),) * 3 for row in rows])[0]
    axes.step(np.arange(len(rows)), photos, where="mid", color=GREY)
    joined, gone = ([place for place, row in enumerate(rows) if getattr(row, name)] for name in ("new", "gone"))
    for places, height, colour in ((joined, 0.93, "good"), (gone, 0.07, "bad")):
        on_axes = {"transform": axes.get_xaxis_transform(), "marker": "s", "color": _COLOURS[colour]}
        axes.scatter(places, [height] * len(places), 14, **on_axes)
    axes.margins(y=0.3)
    axes.set_title("Photos; joined above, gone below", loc="left", fontsize=10)


def _draw_seconds(axes: "Axes", rows: Sequence[Row]) -> None:
    minutes = np.array([_seconds_by_kind(row) for row in rows]).reshape(len(rows), len(KINDS)) / 60
    below = np.zeros(len(rows))
    for of_kind, colour in zip(minutes.T, _OF_KINDS, strict=True):
        axes.bar(np.arange(len(rows)), of_kind, 0.7, below, color=colour)
        below += of_kind
    # One long run must not make all others invisible.
    axes.set_ylim(0, max(1 / 60, min(below.max(initial=0), 3 * np.quantile(below, 0.9) if len(below) else 0)))
    axes.set_title(f"Minutes, from below: {', '.join(KINDS)}", loc="left", fontsize=10)


def _draw_drift(axes: "Axes", rows: Sequence[Row]) -> None:
    known = [(place, row) for place, row in enumerate(rows) if row.drift is not None]
    heights = np.clip([float(row.drift or 0) for _, row in known], 0, _MOST_DRIFT)
    colours = [_COLOURS["wait"] if row.drift_warned else GREY for _, row in known]
    axes.bar([place for place, _ in known], heights, 0.7, color=colours)
    axes.axhline(1, color=ORANGE, linestyle="--", linewidth=1)
    axes.set_ylim(0, max(1.3, heights.max(initial=0)))
    axes.set_title("Drift: the largest figure as a multiple of its limit", loc="left", fontsize=10)


def _seconds_by_kind(row: Row) -> list[float]:
    """Return the seconds of a run by `KINDS`; a stage of none of them counts for the last one."""
    found = dict.fromkeys(KINDS, 0.0)
    of_stage = {stage: kind for kind, stages in KINDS.items() for stage in stages}
    for stage, seconds in row.seconds.items():
        found[of_stage.get(stage, [*KINDS][-1])] += max(0.0, seconds) if math.isfinite(seconds) else 0.0
    return list(found.values())


def _held(values: Sequence[tuple[float, ...] | None]) -> np.ndarray:
    """Return the figures of each run, or else the last known ones: float64, shape (3, runs), NaN before."""
    held, last = [], (math.nan,) * 3
    for value in values:
        last = value or last
        held.append(last)
    return np.array(held).reshape(len(values), 3).T
