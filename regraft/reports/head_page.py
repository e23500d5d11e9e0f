"""The head on cached features: whether transfer works, the leaderboard of the sweep, the learning curve."""

from typing import Any

from regraft.files import read_json
from regraft.reports.blocks import Chart, Page
from regraft.reports.expectations import NAMED
from regraft.reports.markdown import Bold, table
from regraft.reports.plots import curve_chart
from regraft.reports.sources import Sources
from regraft.training.heads import read_leaderboard
from regraft.training.tables import read_curve


def head_page(sources: Sources) -> Page:
    """Return the page with the verdict on transfer and the leaderboard."""
    report = read_json(sources.reports / "head.json")
    leaders = read_leaderboard(sources.reports / "leaderboard.csv")
    tried = len(leaders)
    rows = [
        [place, *(_figure(name, value) for name, value in row.items())]
        for place, row in enumerate(leaders.head(NAMED).to_dict("records"), 1)
    ]
    return Page(
        "head",
        "Head",
        [
            " ".join(report["words"]),
            table(["classifier", "accuracy on val"], _compared(report)),
            f"## Leaderboard: {tried} tried" + (f", the first {NAMED}" if tried > NAMED else ""),
            table(["", *(name.replace("_", " ") for name in leaders.columns)], rows),
        ],
    )


def head_curve_page(sources: Sources) -> Page:
    """Return the page with the learning curve."""
    report = read_json(sources.reports / "head.json")
    chart = curve_chart(read_curve(sources.reports / "head_curve.csv"), report["best_epoch"])
    return Page("head-curve", "Head on cached features", [best_epoch(report), Chart("learning curve", chart)])


def best_epoch(report: dict[str, Any]) -> str:
    """Return a sentence about the epoch that a training chose."""
    val = report["val"]
    return (
        f"Best epoch {report['best_epoch']} of {report['epochs_run']}: val accuracy {val['accuracy']:.3f}, "
        f"cross-entropy {val['log_loss']:.3f}."
    )


def _compared(report: dict[str, Any]) -> list[list[str]]:
    probes = report["probes"]
    return [
        ["always the largest class", f"{probes['majority']:.3f}"],
        ["nearest class centroid", f"{probes['nearest_centroid']:.3f}"],
        ["nearest neighbours", f"{probes['nearest_neighbours']:.3f}"],
        *(
            [f"the head, with {float(share):.0%} of the training photos", f"{accuracy:.3f}"]
            for share, accuracy in report["learning_curve"].items()
        ),
        ["the head", Bold(f"{report['val']['accuracy']:.3f}")],
    ]


def _figure(name: Any, value: Any) -> Any:
    if str(name).startswith("val"):
        return f"{value:.4f}"
    return f"{value:g}" if isinstance(value, float) else value
