"""Charts as PNG, each from figures that a stage wrote as CSV or JSON.

They have no background and lines of a middle grey, so they can be read on a light page and on a dark one.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from regraft.reports.contact_sheet import cut, printable
from regraft.training.metrics import Objective, in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#3b82f6", "#d9730d", "#7c828b"
_MOST_BARS = 200  # of the chart of classes; matplotlib draws at most 65,536 pixels
_MOST_NAMED = 60  # classes that a confusion matrix names; above, every class is a dot
_MOST_COUNTED = 30  # classes whose confusion matrix has numbers in its cells


def class_balance_chart(images_per_class: dict[str, int]) -> bytes:
    """Draw the number of usable images per class as bars, the largest class first; of many classes, both ends."""
    names = sorted(images_per_class, key=lambda name: -images_per_class[name])
    left_out = len(names) - _MOST_BARS
    if left_out > 0:
        half = _MOST_BARS // 2
        names = [*names[:half], *names[-half:]]
    with canvas(7, 1.0 + 0.28 * max(1, len(names))) as (figure, png):
        axes = figure.subplots()
        bars = axes.barh(range(len(names)), [images_per_class[name] for name in names], color=BLUE)
        axes.set_yticks(range(len(names)), [label(name) for name in names])  # two long names may be cut alike
        axes.bar_label(bars, padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.12, y=0.01)
        axes.set_xlabel("images that can be used")
        if left_out > 0:
            axes.axhline(half - 0.5, color=ORANGE, linestyle="--")
            axes.set_title(f"the {half} largest and the {half} smallest classes; {left_out} between them are not drawn")
    return png.getvalue()


def shares_chart(shares: dict[str, tuple[float, float | None]]) -> bytes:
    """Draw the classes' shares now as bars, and what they were in training as marks; of many classes the first ones."""
    names = list(shares)[:_MOST_BARS]
    with canvas(7, 1.0 + 0.28 * max(1, len(names))) as (figure, png):
        axes = figure.subplots()
        axes.barh(range(len(names)), [100 * shares[name][0] for name in names], color=BLUE, label="now")
        before = [(place, then) for place, name in enumerate(names) if (then := shares[name][1]) is not None]
        if before:
            places, then = zip(*before, strict=True)
            marks = {"marker": "|", "s": 160, "color": ORANGE, "linewidths": 2.5}
            axes.scatter([100 * share for share in then], places, label="in production's data", zorder=3, **marks)
            axes.legend(frameon=False, fontsize=8, loc="lower right")
        axes.set_yticks(range(len(names)), [label(name) for name in names])
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.set_xlabel("% of the photos")
    return png.getvalue()


def image_statistics_chart(statistics: dict[str, dict[str, Any]]) -> bytes:
    """Draw histograms of shares, one per statistic, with the limits that photos should keep.

    Args:
        statistics: from `regraft.validation.drift.histograms`, by name.
    """
    with canvas(8, 4.2) as (figure, png):
        for axes, (name, histogram) in zip(figure.subplots(2, 3).flat, statistics.items(), strict=False):
            axes.set_title(name.replace("_", " "), fontsize=10)
            axes.set_yticks([])
            if histogram["edges"]:
                _draw_histogram(axes, histogram)
        if any(histogram["in_production"] for histogram in statistics.values()):
            figure.axes[0].legend(frameon=False, fontsize=8)
    return png.getvalue()


def curve_chart(curve: pd.DataFrame, objective: Objective, *, best_epoch: int | None) -> bytes:
    """Draw a learning curve: what is minimized on train, and the two figures on val that the training is judged by.

    Args:
        curve: from `read_curve`; without rows, the phase was not run.
        objective: the two figures.
        best_epoch: the epoch that was chosen, marked with a dot; None where none is.
    """
    with canvas(7, 3.2) as (figure, png):
        left, right = figure.subplots(1, 2)
        left.plot(curve.epoch, curve.train_loss, color=GREY, label="train, as it is minimized")
        left.plot(curve.epoch, curve[f"val_{objective.loss}"], color=BLUE, label="val")
        left.set(xlabel="epoch", ylabel=in_words(objective.loss))
        right.plot(curve.epoch, curve[f"val_{objective.share}"], color=BLUE)
        right.set(xlabel="epoch", ylabel=in_words(objective.share))
        if curve.empty:
            for axes in (left, right):
                axes.text(0.5, 0.5, "not run", ha="center", transform=axes.transAxes)
                axes.set(xticks=[], yticks=[])
        else:
            if best_epoch is not None:
                best = curve[curve.epoch == best_epoch]
                left.plot(best.epoch, best[f"val_{objective.loss}"], "o", color=ORANGE)
                label = f"best: epoch {best_epoch}"
                right.plot(best.epoch, best[f"val_{objective.share}"], "o", color=ORANGE, label=label)
            figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return png.getvalue()


def confusion_chart(confusion: pd.DataFrame) -> bytes:
    """Draw a confusion matrix: colours are shares of the true class, numbers are images.

    Args:
        confusion: a row per true class, by name, and a column per predicted one in the same order.
    """
    from matplotlib.colors import LinearSegmentedColormap

    matrix = confusion.to_numpy()
    is_named = len(matrix) <= _MOST_NAMED
    size = 2.2 + 0.42 * len(matrix) if is_named else 8.0
    with canvas(size + 0.8, size) as (figure, png):
        axes = figure.subplots()
        shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
        # From no colour at all, so that an empty cell is the page.
        colours = LinearSegmentedColormap.from_list("shares", ["#1f6feb00", "#1f6febff"])
        axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
        axes.set(xlabel="predicted", ylabel="actual")
        if is_named:
            names = [label(str(name)) for name in confusion.index]
            axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
            axes.set_yticks(range(len(names)), names)
        if len(matrix) <= _MOST_COUNTED:
            for row, column in zip(*np.nonzero(matrix), strict=True):
                colour = "white" if shares[row, column] > 0.5 else GREY
                axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
    return png.getvalue()


def risk_coverage_chart(curve: pd.DataFrame, promise: dict[str, float] | None) -> bytes:
    """Draw how precise answers are if only the surest photos are answered.

    Args:
        curve: columns threshold, coverage, precision.
        promise: `abstain_below` and `target_precision` of the file, drawn as lines; None of one that has none.
    """
    with canvas(7, 3.2) as (figure, png):
        axes = figure.subplots()
        axes.plot(curve.coverage, curve.precision, color=BLUE, drawstyle="steps-post", label="test photos")
        axes.set(xlabel="share of photos that are answered", ylabel="of these rightly", xlim=(0, 1.01))
        if promise:
            coverage = curve.coverage[curve.threshold >= promise["abstain_below"]].max()  # missing if none is answered
            axes.axhline(promise["target_precision"], color=GREY, linestyle="--", label="promised")
            label = f"answered at {promise['abstain_below']:.6g} and above"
            axes.axvline(0 if np.isnan(coverage) else coverage, color=ORANGE, linestyle="--", label=label)
        axes.legend(frameon=False, loc="lower left")
    return png.getvalue()


def reliability_chart(bins: pd.DataFrame) -> bytes:
    """Draw accuracy by confidence, as trained and as shipped: on the diagonal a model is as right as it says.

    Args:
        bins: from `regraft.export.evaluation.reliability`; the area of a dot is its share of the photos.
    """
    with canvas(7, 3.6) as (figure, png):
        sides = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, (when, title) in zip(sides, (("before", "as trained"), ("after", "as shipped")), strict=True):
            rows = bins[bins.when == when]
            axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
            errors = [rows.accuracy - rows.low, rows.high - rows.accuracy]
            axes.errorbar(rows.confidence, rows.accuracy, errors, fmt="none", ecolor=GREY, linewidth=1)
            axes.scatter(rows.confidence, rows.accuracy, 20 + 300 * rows.images / rows.images.sum(), color=BLUE)
            axes.set(title=title, xlabel="probability of its answer", xlim=(0, 1.03), ylim=(0, 1.03))
        sides[0].set_ylabel("of these right, with 95 % interval")
    return png.getvalue()


def _draw_histogram(axes: "Axes", histogram: dict[str, Any]) -> None:
    edges, now, before = histogram["edges"], histogram["now"], histogram["in_production"]
    axes.stairs(np.array(now) / max(1, sum(now)), edges, fill=True, color=BLUE, label="now")
    if before:
        axes.stairs(np.array(before) / max(1, sum(before)), edges, color=GREY, label="in production")
    for limit in (histogram["lowest"], histogram["highest"]):
        if limit is not None and edges[0] <= limit <= edges[-1]:
            axes.axvline(limit, color=ORANGE, linestyle="--")
    axes.set_xscale("log" if histogram["is_logarithmic"] else "linear")


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple["Figure", BytesIO]]:
    """Yield an empty figure of so many inches; when it is drawn, its PNG is in the file beside it."""
    import matplotlib
    from matplotlib.figure import Figure

    coloured = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: Any = {**dict.fromkeys(coloured, GREY), "savefig.transparent": True}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # No font has every letter that a class name may have: the missing ones are boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure, png = Figure((width, height), layout="constrained", dpi=110), BytesIO()
        yield figure, png
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(png, format="png")


def label(name: str) -> str:
    """A class name as a label of matplotlib, where a dollar sign would start a formula."""
    return cut(printable(name), 24).replace("$", r"\$")
