"""The int8 file: which rung of the ladder it is, why, and what it costs."""

from typing import Any

from regraft.files import read_json, readable_bytes
from regraft.reports.blocks import Block, Page
from regraft.reports.evaluation_page import of_all
from regraft.reports.markdown import table
from regraft.reports.sources import Sources


def int8_page(sources: Sources) -> Page:
    """Return the page."""
    report = read_json(sources.reports / "int8.json")
    rows = [
        ["precision", report["rung"]],
        ["why", report["words"]],
        ["size", readable_bytes(report["bytes"])],
        ["sha256", report["sha256"]],
        ["here", report["processor"]],
        *_on_test(report.get("test")),
        *_novelty(report.get("novelty")),
    ]
    if "abstention" in report:
        rows.append(["when it is unsure", report["abstention"]])
    parts: list[Block] = [table(["", ""], rows)]
    if steps := report.get("steps"):
        tried = [[step["rung"], "passed" if step["passed"] else "passed over", step["words"]] for step in steps]
        parts += ["## Rungs that were tried", table(["rung", "", "why"], tried)]
    return Page("int8", "Int8 file", parts)


def _on_test(test: dict[str, Any] | None) -> list[list[str]]:
    """The accuracy of both files, which decided nothing."""
    if test is None or test["accuracy"] is None:
        return []
    accuracy, found = test["accuracy"], test["difference"]
    words = (
        f"{accuracy['int8']:.2%} in int8, {accuracy['float32']:.2%} in float32, of {test['images']} "
        f"photos{of_all(test)}; the difference is {found['value']:+.2%} ({found['low']:+.2%} to {found['high']:+.2%})"
    )
    return [["accuracy on test, which decided nothing", words]]


def _novelty(novelty: dict[str, Any] | None) -> list[list[str]]:
    if novelty is None:
        return []
    above = novelty["novel_above"]
    words = (
        f"shifted by {novelty['mean_shift']:+.4f} on val, by at most {novelty['largest_shift']:.4f}; novel is what is "
        f"above {above['int8']:.4f} (float32: {above['float32']:.4f})"
    )
    return [["novelty", words]]
