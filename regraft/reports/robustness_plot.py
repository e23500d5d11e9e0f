"""One picture of robustness: a panel per kind of damage."""

from typing import TYPE_CHECKING, Any

from regraft.photos.corruptions import KINDS
from regraft.reports.charts import BLUE, GREY, ORANGE, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (BLUE, ORANGE)


def robustness_chart(files: list[dict[str, Any]]) -> bytes:
    """Draw accuracy against severity with its 95 % interval; dotted, the share of photos that are answered.

    Args:
        files: of reports/robustness.json, at most one per colour.
    """
    with canvas(8, 5) as (figure, png):
        panels = figure.subplots(2, 3, sharey=True)
        for axes, kind in zip(panels.flat, KINDS, strict=True):
            for colour, found in zip(_COLOURS, files, strict=False):
                rows = [row for row in found["rows"] if row["kind"] in ("none", kind)]
                _draw(axes, rows, found["name"], colour)
                if any(row["answered"] < 1 for row in found["rows"]):
                    answered = [row["answered"] for row in rows]
                    axes.plot(range(len(rows)), answered, ":", color=colour, label=f"answered by {found['name']}")
            axes.set_title(KINDS[kind].quantity, fontsize=10)
            levels = [f"{level:g}" for level in KINDS[kind].levels]
            axes.set_xticks(range(len(levels) + 1), ["none", *levels], fontsize=8)
            axes.set_ylim(0, 1.02)
            axes.grid(axis="y", color=GREY, alpha=0.25)
        for row in panels:
            row[0].set_ylabel("accuracy")
        handles, labels = panels[0][0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return png.getvalue()


def _draw(axes: "Axes", rows: list[dict[str, Any]], name: str, colour: str) -> None:
    severities, lows, highs = range(len(rows)), [row["low"] for row in rows], [row["high"] for row in rows]
    axes.plot(severities, [row["accuracy"] for row in rows], "o-", color=colour, markersize=4, label=name)
    axes.fill_between(severities, lows, highs, color=colour, alpha=0.15, linewidth=0)
