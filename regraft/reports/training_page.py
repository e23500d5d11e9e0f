"""Training: the head on cached features, the base that fine-tuning starts from, and fine-tuning."""

from typing import Any

import pandas as pd

from regraft.core.files import read_json
from regraft.core.statistics import Interval
from regraft.reports.charts import curve_chart
from regraft.reports.page import Block, Bold, Chart, Heading, Page, Table
from regraft.reports.sources import Sources
from regraft.reports.validation_page import NAMED
from regraft.training.heads import read_leaderboard
from regraft.training.metrics import Objective, Score, read_curve


def head_page(sources: Sources) -> Page:
    """Return the page with the verdict on transfer and the leaderboard."""
    report = read_json(sources.reports / "head.json")
    leaders = _judged(read_leaderboard(sources.reports / "leaderboard.csv"), Objective(**report["objective"]))
    rows = [
        [place, *(_cell(str(name), value) for name, value in row.items())]
        for place, row in enumerate(leaders.head(NAMED).to_dict("records"), 1)
    ]
    more = f", the first {NAMED}" if len(leaders) > NAMED else ""
    blocks: list[Block] = [
        " ".join(report["words"]),
        Table(["classifier", "accuracy on val (95% interval)"], _classifiers(report)),
        Heading(f"Leaderboard: {len(leaders)} tried{more}"),
        *_sample_of_sweep(report["photos"]),
        Table(["", *(name.replace("_", " ") for name in leaders.columns)], rows),
    ]
    return Page("head", "Head", blocks)


def head_curve_page(sources: Sources) -> Page:
    """Return the page with the learning curve; a linear head is solved for and has none."""
    report = read_json(sources.reports / "head.json")
    objective, val, best = Objective(**report["objective"]), Score(**report["val"]), report["best_epoch"]
    if report["settings"]["optimizer"] == "lbfgs":
        text = f"The best linear head was found in {best} passes over the photos: on val {objective.words(val)}."
        return Page("head-curve", "Head on cached features", [text])
    chart = curve_chart(read_curve(sources.reports / "head_curve.csv"), objective, best_epoch=best)
    text = f"Best epoch {best} of {report['epochs_run']}: on val {objective.words(val)}."
    return Page("head-curve", "Head on cached features", [text, Chart("learning curve", chart)])


def base_page(sources: Sources) -> Page:
    """Return the page on the base that the run starts from."""
    report = read_json(sources.reports / "base.json")
    excluded = [
        f"{count:,} photos of {split} are left out wherever the model is judged: the base has seen them or "
        f"near-duplicates of them."
        for split, count in report["left_out"].items()
    ]
    return Page("base", "The base that fine-tuning starts from", [report["words"], *excluded])


def base_training_page(sources: Sources) -> Page:
    """Return the page on the training of the base."""
    report = read_json(sources.reports / "base_training.json")
    chart = _chart(sources, "base_curve.csv", "learning curve of the base; epoch 0 is its head alone")
    return Page("base-curve", "How the base was trained", [report["reason"], *chart])


def fine_tune_page(sources: Sources) -> Page:
    """Return the page on the training of the run and on the weights that ship."""
    report = read_json(sources.reports / "fine_tune.json")
    chart = _chart(sources, "fine_tune_curve.csv", "learning curve of the run; epoch 0 is the base")
    return Page("fine-tune-curve", "Fine-tuning", [report["reason"], *chart])


def _chart(sources: Sources, name: str, title: str) -> list[Block]:
    curve = read_curve(sources.reports / name)
    if curve.empty:
        return []
    objective = read_json(sources.reports / "head.json", "objective")["objective"]  # the same for all trainings
    return [Chart(title, curve_chart(curve, Objective(**objective), best_epoch=None))]


def _sample_of_sweep(photos: dict[str, int]) -> list[str]:
    """Return a sentence where settings were compared on a part of the photos."""
    if photos["compared_on"] == photos["trained_on"]:
        return []
    trained, compared, val = (f"{photos[name]:,}" for name in ("trained_on", "compared_on", "val"))
    return [
        f"Settings were compared on {compared} of {trained} training photos, and {val} of val; the best was then "
        f"trained on all {trained}."
    ]


def _classifiers(report: dict[str, Any]) -> list[list[str]]:
    probes = report["probes"]
    figures = {
        "always the largest class": probes["majority"],
        "nearest class centroid": probes["nearest_centroid"],
        "nearest neighbours": probes["nearest_neighbours"],
    }
    figures |= {
        f"the head, with {int(photos):,} training photos": accuracy
        for photos, accuracy in report["learning_curve"].items()
    }
    whole = [f"the head, with all {report['photos']['trained_on']:,}", Bold(Interval(**report["accuracy"]))]
    return [*([name, str(Interval(**accuracy))] for name, accuracy in figures.items()), whole]


def _judged(leaders: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    """Leave out the figures that the heads were not judged by."""
    judged = {f"val_{objective.share}", f"val_{objective.loss}"}
    return leaders[[name for name in leaders.columns if name in judged or not name.startswith("val_")]]


def _cell(name: str, value: Any) -> Any:
    if name.startswith("val"):
        return f"{value:.4f}"
    return f"{value:g}" if isinstance(value, float) else value
