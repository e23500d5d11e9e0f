"""Fine-tuning: whether the base was kept and why, how it was trained, and what came of today's run."""

from regraft.files import read_json
from regraft.reports.blocks import Block, Chart, Page
from regraft.reports.charts import curve_chart
from regraft.reports.markdown import cell
from regraft.reports.sources import Sources
from regraft.training.metrics import Objective
from regraft.training.tables import read_curve


def base_page(sources: Sources) -> Page:
    """Return the page of which base the run starts from."""
    report = read_json(sources.reports / "base.json")
    said = [
        f"{count:,} photos of {split} are left out wherever the model is judged: the base has seen them or "
        f"near-duplicates of them."
        for split, count in report["left_out"].items()
    ]
    return Page("base", "The base that fine-tuning starts from", [cell(report["words"]), *said])


def base_training_page(sources: Sources) -> Page:
    """Return the page of how the base was trained."""
    report = read_json(sources.reports / "base_training.json")
    chart = _chart(sources, "base_curve.csv", "learning curve of the base; epoch 0 is its head alone")
    return Page("base-curve", "How the base was trained", [report["reason"], *chart])


def fine_tune_page(sources: Sources) -> Page:
    """Return the page of what was trained in the run, and of the weights that are used."""
    report = read_json(sources.reports / "fine_tune.json")
    chart = _chart(sources, "fine_tune_curve.csv", "learning curve of the run; epoch 0 is the base")
    return Page("fine-tune-curve", "Fine-tuning", [report["reason"], *chart])


def _chart(sources: Sources, name: str, title: str) -> list[Block]:
    curve = read_curve(sources.reports / name)
    if curve.empty:
        return []
    objective = read_json(sources.reports / "head.json", "objective")["objective"]  # the same for all trainings
    return [Chart(title, curve_chart(curve, Objective(**objective), best_epoch=None))]
