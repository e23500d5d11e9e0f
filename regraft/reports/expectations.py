"""The table of expectations that the pages about the photos share."""

from typing import Any

from regraft.reports.markdown import Bold, table

NAMED = 20  # rows of a table of problems
_OFFENDERS = 3  # of an expectation that are named in its row
_SIGNS = {"error": Bold("fails"), "warn": Bold("warning"), "note": "note"}  # where it is violated, by severity


def expectations_table(report: dict[str, Any]) -> str:
    """Return the expectations of a report: what stops the run first, then warnings, notes, and what is met."""
    rows = [
        [
            _sign(result),
            result["severity"],
            result["expected"],
            _found(result),
            "" if result["success"] else _named(result["offenders"]),
            "" if result["success"] else result["advice"],
        ]
        for result in sorted(report["expectations"], key=_urgency)
    ]
    return table(["", "severity", "expected", "found", "which", "what to do"], rows)


def heading(title: str, rows: list[Any]) -> str:
    """Return a heading with the number of rows, and how many of them the table below it has."""
    return f"## {title}: {len(rows)}" + (f", the first {NAMED}" if len(rows) > NAMED else "")


def _found(result: dict[str, Any]) -> str:
    """What was found, and what is usual in this folder where that made a difference."""
    return f"{result['found']}. {result['note']}" if result.get("note") else result["found"]


def _urgency(result: dict[str, Any]) -> int:
    return len(_SIGNS) if result["success"] else list(_SIGNS).index(result["severity"])


def _named(offenders: list[str]) -> str:
    return "; ".join(offenders[:_OFFENDERS]) + ("; ..." if len(offenders) > _OFFENDERS else "")


def _sign(result: dict[str, Any]) -> str:
    return "ok" if result["success"] else _SIGNS[result["severity"]]
