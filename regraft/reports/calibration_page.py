"""How good the probabilities of the shipped file are as such, and how often it calls a known photo novel."""

from regraft.export.reliability import read_reliability
from regraft.files import read_json
from regraft.intervals import Interval
from regraft.reports.blocks import Chart, Page
from regraft.reports.charts import reliability_chart
from regraft.reports.evaluation_page import of_all
from regraft.reports.markdown import table
from regraft.reports.sources import Sources

_FIGURES = {
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "ece_by_chance": "the same of calibrated probabilities, by chance",
}


def calibration_page(sources: Sources) -> Page:
    """Return the page."""
    chart = Chart("accuracy by confidence", reliability_chart(read_reliability(sources.reports / "reliability.csv")))
    return Page("calibration", "How far its probabilities can be trusted", [*calibration_texts(sources), chart])


def calibration_texts(sources: Sources) -> list[str]:
    """Return what was done to the probabilities and what came of it on test."""
    chosen = read_json(sources.reports / "export.json")["calibration"]
    report = read_json(sources.reports / "calibration.json")
    rows = [[name, *(f"{report[when][key]:.4f}" for when in ("before", "after"))] for key, name in _FIGURES.items()]
    test = read_json(sources.reports / "metrics.json")["test"]
    words = [chosen["words"], table([f"test photos{of_all(test)}", "as trained", "as shipped"], rows)]
    if novel := report.get("novel"):
        share = Interval(**novel["share"])
        expected = f"; {novel['expected']:.1%} were expected" if novel.get("expected") else ""
        words.append(f"Of {novel['images']} test photos{of_all(test)} {share} are called novel{expected}.")
    return words
