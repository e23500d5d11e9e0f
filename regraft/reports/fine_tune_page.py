"""Fine-tuning: its learning curve, and whether its network is used."""

from regraft.files import read_json
from regraft.reports.blocks import Chart, Page
from regraft.reports.head_page import best_epoch
from regraft.reports.plots import curve_chart
from regraft.reports.sources import Sources
from regraft.training.tables import read_curve


def fine_tune_page(sources: Sources) -> Page:
    """Return the page."""
    report = read_json(sources.reports / "fine_tune.json")
    text = f"{best_epoch(report)} {report['reason']}" if "val" in report else report["reason"]
    chart = curve_chart(read_curve(sources.reports / "fine_tune_curve.csv"), report.get("best_epoch"))
    return Page("fine-tune-curve", "Fine-tuning", [text, Chart("learning curve; epoch 0 is the head alone", chart)])
