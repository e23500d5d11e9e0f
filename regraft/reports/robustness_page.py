"""How accurate the shipped file stays on photos that are damaged more and more."""

from typing import Any

from regraft.photos.corruptions import KINDS, SEVERITIES
from regraft.reports.blocks import Block, Chart, Page
from regraft.reports.markdown import Bold, cell, table
from regraft.reports.measured import robustness_of, why_not
from regraft.reports.robustness_plot import robustness_chart
from regraft.reports.sources import Sources


def robustness_page(sources: Sources) -> Page:
    """Return the page."""
    files = robustness_of(sources)
    blocks: list[Block] = [why_not(sources, "robustness.json")]
    if files:
        chart = Chart("accuracy by severity of damage, a panel per kind", robustness_chart(files))
        blocks = [what_was_measured(files[0]), chart]
        for each in files:
            blocks += [*([f"## {cell(each['name'])}"] if len(files) > 1 else []), robustness_table(each)]
    return Page("robustness", "Worse photos", blocks)


def what_was_measured(found: dict[str, Any]) -> str:
    """Return which photos were asked about, and what the table says."""
    images, independent = found["images"], found["independent_images"]
    of_all = found.get("of_images", images)  # a report of before does not say it
    count = f"{images} of {of_all:,}" if images < of_all else images
    alike = f"as independent as {independent}" if independent < images else "all independent"
    return (
        f"The same {count} test photos ({alike}), each damaged in {len(KINDS)} ways and {SEVERITIES} severities. "
        f"Larger ones are first reduced to {found['shorter_side']} pixels at their shorter side; "
        f"{found['same_as_raw']:.1%} of all get the same class without damage as from their files. In bold: the loss "
        f"is more than chance (Tango's 95% interval of the difference on the same photos, for each severity by itself)."
    )


def robustness_table(found: dict[str, Any]) -> str:
    """Return a row per kind of damage: its levels with the accuracies, and what the strongest costs."""
    rows = {(row["kind"], row["severity"]): row for row in found["rows"]}
    undamaged = next(row for row in found["rows"] if row["severity"] == 0)
    header = ["damage", f"none: {undamaged['accuracy']:.1%}, and at severity 1", *"2345"]
    header += ["loss at 5, points (95% interval)", *_header_of_rest(undamaged)]
    lines = []
    for kind, corruption in KINDS.items():
        of_kind = [rows[kind, severity] for severity in range(1, SEVERITIES + 1)]
        worst = of_kind[-1]
        loss = f"{100 * worst['loss']:.1f} ({100 * worst['loss_low']:.1f} to {100 * worst['loss_high']:.1f})"
        lines.append([corruption.quantity, *map(_accuracy, of_kind), loss, *_rest(worst)])
    return table(header, lines)


def _accuracy(row: dict[str, Any]) -> str:
    text = f"{row['level']:g}: {row['accuracy']:.0%}"
    return Bold(text) if row["loss_low"] > 0 else text


def _header_of_rest(undamaged: dict[str, Any]) -> list[str]:
    header = [f"answered at 5 (none: {undamaged['answered']:.0%})"]
    return header + ([f"novel at 5 (none: {undamaged['novel']:.0%})"] if undamaged["novel"] is not None else [])


def _rest(worst: dict[str, Any]) -> list[str]:
    rightly = "" if worst["precision"] is None else f", {worst['precision']:.0%} of them rightly"
    novel = [] if worst["novel"] is None else [f"{worst['novel']:.0%}"]
    return [f"{worst['answered']:.0%}{rightly}", *novel]
