"""The picture of docs/gate.md: how often a new model is promoted, refused or left open, by number of test photos."""

from pathlib import Path
from typing import Any

# As in regraft.reports.charts: greys that can be read on a light page and on a dark one, and no background.
_GREY = "#7c828b"
_ANSWERS = {"promoted": "#3b82f6", "undecided": "#e0b05a", "refused": "#c8452f"}
_SHOWN = {
    "worse_0.04": "4 points worse",
    "worse_0.02": "2 points worse",
    "equal": "equal",
    "better_0.02": "2 points better",
}
_PHOTOS = (200, 346, 1000, 5000)
_RULES = {"now": "three answers", "before": "before: margin 0.01"}


def draw_picture(path: Path, found: dict[str, Any]) -> None:
    """Write the picture as SVG.

    Args:
        path: of the file.
        found: from `benchmarks.gate.simulate`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    coloured = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    # Equal figures give equal bytes: no date, and ids that do not depend on chance.
    style: Any = {**dict.fromkeys(coloured, _GREY), "svg.fonttype": "none", "svg.hashsalt": "gate", "font.size": 9}
    with matplotlib.rc_context(style):
        figure = Figure((9, 4.4), layout="constrained")
        axes = figure.subplots(len(_RULES), len(_SHOWN), sharex=True, sharey=True)
        for row, (rule, rule_name) in zip(axes, _RULES.items(), strict=True):
            for each, (scenario, name) in zip(row, _SHOWN.items(), strict=True):
                _draw(each, found[rule][scenario])
                if rule == "now":
                    each.set_title(name, fontsize=10)
            row[0].set_ylabel(f"{rule_name}\n% of nights")
        for each in axes[-1]:
            each.set_xlabel("test photos")
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _draw(axes: Any, by_photos: dict[str, dict[str, float]]) -> None:
    """Stack the shares of the answers over the number of photos."""
    photos = list(_PHOTOS)
    shares = [[100 * by_photos[str(each)][answer] for each in photos] for answer in _ANSWERS]
    axes.stackplot(photos, shares, labels=list(_ANSWERS), colors=list(_ANSWERS.values()), alpha=0.85)
    axes.set(xscale="log", xlim=(photos[0], photos[-1]), ylim=(0, 100))
    axes.set_xticks(photos, [f"{each:,}" for each in photos])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
