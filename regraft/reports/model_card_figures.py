"""The section of the model card with the figures; all of them are those of the report's pages."""

from regraft.files import read_json
from regraft.reports.calibration_page import calibration_texts
from regraft.reports.evaluation_page import confused_table, figures_table
from regraft.reports.gate_page import read_gate
from regraft.reports.latency_page import latency_tables
from regraft.reports.markdown import cell
from regraft.reports.measured import latency_of, robustness_of, why_not
from regraft.reports.parts_page import parts_tables
from regraft.reports.robustness_page import robustness_table, what_was_measured
from regraft.reports.sources import Sources

_ROWS = 50  # of classes, and of values of slices


def quantitative_analyses(sources: Sources) -> list[str]:
    """Return the figures under headings of the third level, those of the whole test split first."""
    blocks = {
        "On the test split": [figures_table(sources)],
        "Parts of the test split": parts_tables(sources, _ROWS, level="####"),
        "What it takes for what": [confused_table(sources)],
        "Probabilities": calibration_texts(sources),
        "When it is unsure": _unsure(sources),
        "Worse photos": _robustness(sources),
        "Speed": latency_tables(found) if (found := latency_of(sources)) else [why_not(sources, "latency.json")],
        "The gate": _gate(sources),
    }
    return [text for title, texts in blocks.items() for text in (f"### {title}", *texts)]


def _unsure(sources: Sources) -> list[str]:
    chosen, on_test = read_json(sources.reports / "export.json"), read_json(sources.reports / "abstention.json")
    return [f"{cell(chosen['abstention']['words'])} {cell(on_test['words'])}"]


def _robustness(sources: Sources) -> list[str]:
    files = robustness_of(sources)
    if not files:
        return [why_not(sources, "robustness.json")]
    blocks = [what_was_measured(files[0])]
    for found in files:
        blocks += [*([f"#### {cell(found['name'])}"] if len(files) > 1 else []), robustness_table(found)]
    return blocks


def _gate(sources: Sources) -> list[str]:
    gate = read_gate(sources)
    return ["The gate was not asked about this model." if gate is None else cell(gate["words"])]
