"""Fine-tuning: its learning curve, and whether its network is used."""

from regraft.files import read_json
from regraft.reports.blocks import Chart, Page
from regraft.reports.plots import curve_chart
from regraft.reports.sources import Sources
from regraft.training.metrics import Objective
from regraft.training.tables import read_curve


def fine_tune_page(sources: Sources) -> Page:
    """Return the page."""
    report = read_json(sources.reports / "fine_tune.json")
    curve = read_curve(sources.reports / "fine_tune_curve.csv")
    chart = curve_chart(curve, Objective(**report["objective"]), best_epoch=None)
    parts = [report["reason"], Chart("learning curve; epoch 0 is the head alone", chart)]
    return Page("fine-tune-curve", "Fine-tuning", parts)
