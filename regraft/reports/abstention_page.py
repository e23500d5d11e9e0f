"""When the shipped file had better say that it is unsure, what it promises of the rest, and what test says of that."""

from regraft.export.abstention import read_curve_of_risk
from regraft.files import read_json
from regraft.reports.blocks import Chart, Page
from regraft.reports.charts import risk_coverage_chart
from regraft.reports.sources import Sources


def abstention_page(sources: Sources) -> Page:
    """Return the page."""
    chosen = read_json(sources.reports / "export.json")["abstention"]
    on_test = read_json(sources.reports / "abstention.json")["words"]
    curve = read_curve_of_risk(sources.reports / "risk_coverage.csv")
    chart = Chart("precision by the share of photos that are answered", risk_coverage_chart(curve, chosen["promise"]))
    return Page("abstention", "When it is unsure", [chosen["words"], on_test, chart])
