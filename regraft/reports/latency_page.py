"""How fast the shipped file answers, in each engine that was installed."""

from typing import Any

from regraft.files import readable_bytes
from regraft.reports.blocks import Block, Page
from regraft.reports.markdown import Bold, cell, table
from regraft.reports.measured import latency_of, why_not
from regraft.reports.sources import Sources

_ALIKE = 0.01  # of a probability; from there on two engines do not answer alike


def latency_page(sources: Sources) -> Page:
    """Return the page."""
    report = latency_of(sources)
    blocks: list[Block] = [why_not(sources, "latency.json")] if report is None else _blocks(report)
    return Page("latency", "How fast it answers", blocks)


def latency_tables(report: dict[str, Any]) -> list[str]:
    """Return the figures as text: what was measured, the table, and whose answers differ."""
    width, height = report["photo"]
    said = (
        f"{cell(report['processor'])}. From the pixels of a photo of {width} x {height} to probabilities, preparation "
        f"included. {report['repeats']} answers of each were timed, in {report['processes']} processes that take "
        f"turns, after {report['warm_up']} that were not. p95: 95 of 100 answers took no longer."
    )
    header = [
        "",
        "file",
        "start to first answer",
        "one thread: p50, p95, p99",
        f"{report['cores']} threads: p50, p95, p99",
        f"batches of {report['batch']}, {report['cores']} threads",
        "memory, one photo",
        "memory, batches",
        "answers as model.onnx",
    ]
    rows = [_row(row) for row in report["rows"] if "problem" not in row]
    problems = [f"Not measured: {cell(row['name'])} ({cell(row['problem'])})." for row in _failed(report)]
    return [said, table(header, rows), *_warnings(report), *problems]


def _blocks(report: dict[str, Any]) -> list[Block]:
    return list(latency_tables(report))


def _failed(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in report["rows"] if "problem" in row]


def _row(row: dict[str, Any]) -> list[object]:
    return [
        f"{row['name']}, {row['engine']} {row['version'].partition('-')[0]}",
        readable_bytes(row["bytes"]),
        f"{row['cold_start_seconds']:.2f} s",
        _quantiles(row["one_thread"]),
        _quantiles(row["all_cores"]),
        f"{row['images_per_second']:.0f} photos/s",
        readable_bytes(row["peak_bytes"]),
        readable_bytes(row["peak_bytes_of_batches"]),
        _agreement(row),
    ]


def _quantiles(found: dict[str, float]) -> str:
    return ", ".join(f"{found[name]:.1f}" for name in ("p50", "p95", "p99")) + " ms"


def _agreement(row: dict[str, Any]) -> str:
    if row["largest_difference"] == 0:
        return "yes"
    words = f"{row['same_class']:.0%} the same class; a probability differs by {row['largest_difference']:.1g} at most"
    return Bold(words) if row["largest_difference"] > _ALIKE else words


def _warnings(report: dict[str, Any]) -> list[str]:
    """Warn of an engine that runs the same file and does not compute the same."""
    others = [
        row for row in report["rows"] if row["engine"] == "openvino" and row.get("largest_difference", 0) > _ALIKE
    ]
    return [
        f"**{cell(row['name'])} does not answer as the file does**, on {report['compared']} test photos. OpenVINO "
        f"leaves out the antialiasing of the resize inside the file. Reduce photos to the network's size before, or "
        f"use ONNX Runtime."
        for row in others
    ]
