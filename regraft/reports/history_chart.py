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
        accuracy, photos, seconds, drift = figure.subplots(4, 1, sharex=True, height_ratios=(5, 1.5, 2, 1.5))
        _draw_accuracy(accuracy, rows)
        _draw_photos(photos, rows)
        _draw_seconds(seconds, rows)
        _draw_drift(drift, rows)
        for axes in (accuracy, photos, seconds, drift):
            axes.yaxis.tick_right()
            axes.grid(axis="y", color=GREY, alpha=0.2)
            for place, (before, after) in enumerate(pairwise(rows)):
                if after.started - before.started > _GAP:  # a day or more without any run
                    axes.axvline(place + 0.5, color=GREY, linestyle=":", linewidth=1)
        days = [
            place for place, row in enumerate(rows) if not place or row.started.date() != rows[place - 1].started.date()
        ]
        days = days[:: max(1, math.ceil(len(days) / _MOST_DATES))]
        drift.set_xticks(days, [f"{rows[place].started:%d %b}" for place in days])
        drift.set_xlim(-0.6, max(len(rows), 8) - 0.4)
    return png.getvalue()


def _draw_accuracy(axes: "Axes", rows: Sequence[Row]) -> None:
    production = _held([row.production for row in rows])
    places = np.arange(len(rows))
    axes.fill_between(places, production[:, 1], production[:, 2], step="mid", color=BLUE, alpha=0.13, linewidth=0)
    axes.step(places, production[:, 0], where="mid", color=BLUE, linewidth=1.5, label="model in production")
    names = [name for name in VERDICTS if any(row.name == name for row in rows)]
    names += sorted({row.name for row in rows} - VERDICTS.keys())
    for name in names:
        verdict = VERDICTS.get(name, OTHER)
        colour, size = _COLOURS[verdict.colour], 45 if verdict is not OTHER else 25
        style = {"marker": verdict.marker, "s": size, "linewidths": 1.6, "zorder": 3, "edgecolors": colour}
        style["facecolors"] = colour if verdict.is_filled else "none"
        mine = [(place, row) for place, row in enumerate(rows) if row.name == name]
        known = [
            (place, row.accuracy, row.accuracy_low, row.accuracy_high)
            for place, row in mine
            if row.accuracy is not None
        ]
        for place, _, low, high in known:
            if low is not None and high is not None:
                axes.plot([place, place], np.clip([low, high], 0, 1), color=colour, alpha=0.55, linewidth=1.2)
        axes.scatter([place for place, *_ in known], np.clip([value for _, value, *_ in known], 0, 1), **style)
        # What reached no accuracy stands on the floor.
        floor = [place for place, row in mine if row.accuracy is None]
        axes.scatter(floor, [0.04] * len(floor), transform=axes.get_xaxis_transform(), **style)
        axes.scatter([], [], label=f"{label(name)} {len(mine)}", **style)
    axes.set_title("Accuracy on test photos, with 95 % intervals", loc="left", fontsize=10)
    low, high = axes.get_ylim()
    axes.set_ylim(max(-0.05, low - 0.12 * (high - low)), min(1.02, high))
    axes.figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)


def _draw_photos(axes: "Axes", rows: Sequence[Row]) -> None:
    photos = _held([None if row.photos is None else (float(row.photos),) * 3 for row in rows])[:, 0]
    axes.step(np.arange(len(rows)), photos, where="mid", color=GREY)
    for counts, height, colour in (
        ([row.new for row in rows], 0.93, "good"),
        ([row.gone for row in rows], 0.07, "bad"),
    ):
        places = [place for place, count in enumerate(counts) if count]
        transform = axes.get_xaxis_transform()
        axes.scatter(places, [height] * len(places), 14, marker="s", color=_COLOURS[colour], transform=transform)
    axes.margins(y=0.3)
    axes.set_title("Photos; joined above, gone below", loc="left", fontsize=10)


def _draw_seconds(axes: "Axes", rows: Sequence[Row]) -> None:
    minutes = np.array([seconds_by_kind(row) for row in rows]).reshape(len(rows), len(KINDS)) / 60
    below = np.zeros(len(rows))
    for kind, colour in zip(range(len(KINDS)), _OF_KINDS, strict=True):
        axes.bar(np.arange(len(rows)), minutes[:, kind], 0.7, below, color=colour)
        below += minutes[:, kind]
    # One long run must not make all others invisible.
    axes.set_ylim(0, max(1 / 60, min(below.max(initial=0), 3 * np.quantile(below, 0.9) if len(below) else 0)))
    words = ", ".join(KINDS)
    axes.set_title(f"Minutes, from below: {words}", loc="left", fontsize=10)


def _draw_drift(axes: "Axes", rows: Sequence[Row]) -> None:
    known = [(place, row.drift, row.drift_warned) for place, row in enumerate(rows) if row.drift is not None]
    heights = np.clip([drift for _, drift, _ in known], 0, _MOST_DRIFT)
    colours = [_COLOURS["wait"] if warned else GREY for *_, warned in known]
    axes.bar([place for place, *_ in known], heights, 0.7, color=colours)
    axes.axhline(1, color=ORANGE, linestyle="--", linewidth=1)
    axes.set_ylim(0, max(1.3, heights.max(initial=0)))
    axes.set_title("Drift: the largest figure as a multiple of its limit", loc="left", fontsize=10)


def seconds_by_kind(row: Row) -> list[float]:
    """Return the seconds of a run by `KINDS`; what belongs to no stage of theirs is the last one's."""
    found = [0.0] * len(KINDS)
    of_stage = {stage: kind for kind, stages in enumerate(KINDS.values()) for stage in stages}
    for stage, seconds in row.seconds.items():
        found[of_stage.get(stage, len(KINDS) - 1)] += max(0.0, seconds) if math.isfinite(seconds) else 0.0
    return found


def _held(values: Sequence[tuple[float, ...] | None]) -> np.ndarray:
    """Return the figures of each run, or else the last known ones: float64, shape (runs, 3), NaN before."""
    held: list[tuple[float, ...]] = []
    last: tuple[float, ...] = (math.nan,) * 3
    for value in values:
        last = value or last
        held.append(last)
    return np.array(held).reshape(len(values), 3)
