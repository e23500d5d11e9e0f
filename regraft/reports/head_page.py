"""The head on cached features: whether transfer works, the leaderboard of the sweep, the learning curve."""

from typing import Any

import pandas as pd

from regraft.files import read_json
from regraft.intervals import Interval
from regraft.reports.blocks import Chart, Page
from regraft.reports.charts import curve_chart
from regraft.reports.expectations import NAMED
from regraft.reports.markdown import Bold, table
from regraft.reports.sources import Sources
from regraft.training.heads import read_leaderboard
from regraft.training.metrics import Objective, Score
from regraft.training.tables import read_curve


def head_page(sources: Sources) -> Page:
    """Return the page with the verdict on transfer and the leaderboard."""
    report = read_json(sources.reports / "head.json")
    objective = Objective(**report["objective"])
    leaders = _judged(read_leaderboard(sources.reports / "leaderboard.csv"), objective)
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
            table(["classifier", "accuracy on val (95% interval)"], _compared(report)),
            f"## Leaderboard: {tried} tried" + (f", the first {NAMED}" if tried > NAMED else ""),
            *_compared_on(report.get("photos")),
            table(["", *(name.replace("_", " ") for name in leaders.columns)], rows),
        ],
    )


def head_curve_page(sources: Sources) -> Page:
    """Return the page with the learning curve; of a linear head, which is solved for, there is none."""
    report = read_json(sources.reports / "head.json")
    objective, val, best = Objective(**report["objective"]), Score(**report["val"]), report["best_epoch"]
    if report["settings"]["optimizer"] == "lbfgs":
        text = f"The best linear head was found in {best} passes over the photos: on val {objective.words(val)}."
        return Page("head-curve", "Head on cached features", [text])
    chart = curve_chart(read_curve(sources.reports / "head_curve.csv"), objective, best_epoch=best)
    text = f"Best epoch {best} of {report['epochs_run']}: on val {objective.words(val)}."
    return Page("head-curve", "Head on cached features", [text, Chart("learning curve", chart)])


def _compared_on(photos: dict[str, int] | None) -> list[str]:
    """Say so where settings were compared on a part of the photos; where it is not known, they were not."""
    if photos is None or photos["compared_on"] == photos["trained_on"]:
        return []
    trained, compared, val = (f"{photos[name]:,}" for name in ("trained_on", "compared_on", "val"))
    return [
        f"Settings were compared on {compared} of {trained} training photos, and {val} of val; the best was then "
        f"trained on all {trained}."
    ]


def _compared(report: dict[str, Any]) -> list[list[str]]:
    probes, photos = report["probes"], report.get("photos")  # older reports have shares of the photos, and not counts
    return [
        ["always the largest class", _accuracy(probes["majority"])],
        ["nearest class centroid", _accuracy(probes["nearest_centroid"])],
        ["nearest neighbours", _accuracy(probes["nearest_neighbours"])],
        *(
            [f"the head, with {_part(point, is_count=photos is not None)} training photos", _accuracy(accuracy)]
            for point, accuracy in report["learning_curve"].items()
        ),
        [f"the head, with all {photos['trained_on']:,}" if photos else "the head", Bold(_accuracy(report["accuracy"]))],
    ]


def _part(point: str, *, is_count: bool) -> str:
    """A point of the learning curve: so many photos, or in older reports a share of them."""
    return f"{int(point):,}" if is_count else f"{float(point):.0%} of the"


def _accuracy(figures: dict[str, float]) -> str:
    return str(Interval(**figures))


def _judged(leaders: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    """Leave out the figures that the heads were not judged by."""
    judged = {f"val_{objective.share}", f"val_{objective.loss}"}
    return leaders[[name for name in leaders.columns if name in judged or not name.startswith("val_")]]


def _figure(name: Any, value: Any) -> Any:
    if str(name).startswith("val"):
        return f"{value:.4f}"
    return f"{value:g}" if isinstance(value, float) else value
