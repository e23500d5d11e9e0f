"""`regraft report --measure`: the speed of the shipped files in each engine, and their accuracy on damaged photos.

Figures are shown as long as they are about the very files that the last run exported.
"""

from typing import TYPE_CHECKING, Any

from regraft.core.errors import Damaged
from regraft.core.files import read_json, readable_bytes
from regraft.photos.corruptions import KINDS, SEVERITIES
from regraft.reports.charts import BLUE, GREY, ORANGE, canvas
from regraft.reports.page import Block, Bold, Chart, Heading, Page, Table
from regraft.reports.sources import Sources

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOW_TO = "`regraft report --measure` measures it; that takes minutes, so no run does."
_ALIKE = 0.01  # of a probability; from there on two engines do not answer alike
_COLOURS = (BLUE, ORANGE)


def digests(sources: Sources) -> dict[str, str | None]:
    """Return the SHA-256 of the file to ship, and of the one in int8 where there is another one."""
    model = read_json(sources.reports / "export.json", "sha256")["sha256"]
    int8 = (_read(sources, "int8.json", "sha256") or {}).get("sha256")
    return {"model": model, "int8": None if int8 == model else int8}


def latency_of(sources: Sources) -> dict[str, Any] | None:
    """Return the measured speed of these files; None if nothing was measured, or other files."""
    report = _read(sources, "latency.json", "about", "rows")
    return report if report and report["about"] == digests(sources) else None


def robustness_of(sources: Sources) -> list[dict[str, Any]]:
    """Return the accuracy of these files on damaged photos, the file to ship first; empty if nothing was measured."""
    report, current = _read(sources, "robustness.json", "files"), digests(sources)
    files = report["files"] if report else []
    if not any(each["sha256"] == current["model"] for each in files):
        return []
    return [each for each in files if each["sha256"] in current.values()]


def _read(sources: Sources, name: str, *keys: str) -> dict[str, Any] | None:
    try:
        return read_json(sources.reports / name, *keys)
    except (FileNotFoundError, Damaged):  # it can be measured again
        return None


def _why_not(sources: Sources, name: str) -> str:
    reason = "What was measured is about another file." if (sources.reports / name).exists() else "Not measured yet."
    return f"{reason} {HOW_TO}"


def latency_page(sources: Sources) -> Page:
    """Return the page."""
    return Page("latency", "How fast it answers", latency_blocks(sources))


def latency_blocks(sources: Sources) -> list[Block]:
    """Return the conditions, the table, and the engines whose answers differ; or why there are none."""
    report = latency_of(sources)
    if report is None:
        return [_why_not(sources, "latency.json")]
    width, height = report["photo"]
    conditions = (
        f"{report['processor']}. From the pixels of a photo of {width} x {height} to probabilities, preparation "
        f"included. {report['repeats']} answers of each were timed, in {report['processes']} processes that take "
        f"turns, after {report['warm_up']} that were not. p95: 95 of 100 answers took no longer."
    )
    cores = f"{report['cores']} threads"
    header = [
        "",
        "file",
        "start to first answer",
        "one thread: p50, p95, p99",
        f"{cores}: p50, p95, p99",
        f"batches of {report['batch']}, {cores}",
        "memory, one photo",
        "memory, batches",
        "answers as model.onnx",
    ]
    measured = [row for row in report["rows"] if "problem" not in row]
    differ = [row for row in measured if row["engine"] == "openvino" and row["largest_difference"] > _ALIKE]
    warnings = [
        Bold(f"{row['name']} does not answer as the file does, on {report['compared']} test photos.") for row in differ
    ]
    cause = "OpenVINO leaves out the antialiasing of the resize inside the file. Reduce photos to the network's size "
    advice = [f"{cause}before, or use ONNX Runtime."] if differ else []
    failed = [f"Not measured: {row['name']} ({row['problem']})." for row in report["rows"] if "problem" in row]
    return [conditions, Table(header, [_engine(row) for row in measured]), *warnings, *advice, *failed]


def _engine(row: dict[str, Any]) -> list[object]:
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


def robustness_page(sources: Sources) -> Page:
    """Return the page."""
    blocks = robustness_blocks(sources)
    if files := robustness_of(sources):
        blocks.insert(1, Chart("accuracy by severity of damage, a panel per kind", robustness_chart(files)))
    return Page("robustness", "Worse photos", blocks)


def robustness_blocks(sources: Sources) -> list[Block]:
    """Return the conditions and a table per file; or why there are none."""
    files = robustness_of(sources)
    if not files:
        return [_why_not(sources, "robustness.json")]
    blocks: list[Block] = [_conditions(files[0])]
    for each in files:
        blocks += [*([Heading(each["name"])] if len(files) > 1 else []), _robustness_table(each)]
    return blocks


def _conditions(found: dict[str, Any]) -> str:
    images, independent, of_all = found["images"], found["independent_images"], found["of_images"]
    count = f"{images} of {of_all:,}" if images < of_all else images
    alike = f"as independent as {independent}" if independent < images else "all independent"
    return (
        f"The same {count} test photos ({alike}), each damaged in {len(KINDS)} ways and {SEVERITIES} severities. "
        f"Larger ones are first reduced to {found['shorter_side']} pixels at their shorter side; "
        f"{found['same_as_raw']:.1%} of all get the same class without damage as from their files. In bold: the loss "
        f"is more than chance (Tango's 95% interval of the difference on the same photos, for each severity by itself)."
    )


def _robustness_table(found: dict[str, Any]) -> Table:
    """Return a row per kind of damage: the accuracy at each severity, and the loss at the strongest."""
    rows = {(row["kind"], row["severity"]): row for row in found["rows"]}
    undamaged = next(row for row in found["rows"] if row["severity"] == 0)
    has_novelty = undamaged["novel"] is not None
    header = [
        "damage",
        f"none: {undamaged['accuracy']:.1%}, and at severity 1",
        *"2345",
        "loss at 5, points (95% interval)",
        f"answered at 5 (none: {undamaged['answered']:.0%})",
        *([f"novel at 5 (none: {undamaged['novel']:.0%})"] if has_novelty else []),
    ]
    lines = []
    for kind, corruption in KINDS.items():
        of_kind = [rows[kind, severity] for severity in range(1, SEVERITIES + 1)]
        worst = of_kind[-1]
        loss = f"{100 * worst['loss']:.1f} ({100 * worst['loss_low']:.1f} to {100 * worst['loss_high']:.1f})"
        rightly = "" if worst["precision"] is None else f", {worst['precision']:.0%} of them rightly"
        line = [corruption.quantity, *map(_accuracy, of_kind), loss, f"{worst['answered']:.0%}{rightly}"]
        lines.append([*line, *([f"{worst['novel']:.0%}"] if has_novelty else [])])
    return Table(header, lines)


def _accuracy(row: dict[str, Any]) -> str:
    text = f"{row['level']:g}: {row['accuracy']:.0%}"
    return Bold(text) if row["loss_low"] > 0 else text


def robustness_chart(files: list[dict[str, Any]]) -> bytes:
    """Draw accuracy against severity with its 95 % interval; dotted, the share of photos that are answered.

    Args:
        files: of reports/robustness.json, at most one per colour.
    """
    with canvas(8, 5) as (figure, png):
        panels = figure.subplots(2, 3, sharey=True)
        for axes, kind in zip(panels.flat, KINDS, strict=True):
            for colour, found in zip(_COLOURS, files, strict=False):
                _draw(axes, found, kind, colour)
            axes.set_title(KINDS[kind].quantity, fontsize=10)
            levels = [f"{level:g}" for level in KINDS[kind].levels]
            axes.set_xticks(range(len(levels) + 1), ["none", *levels], fontsize=8)
            axes.set_ylim(0, 1.02)
            axes.grid(axis="y", color=GREY, alpha=0.25)
        for row in panels:
            row[0].set_ylabel("accuracy")
        handles, labels = panels[0][0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return png.getvalue()


def _draw(axes: "Axes", found: dict[str, Any], kind: str, colour: str) -> None:
    rows = [row for row in found["rows"] if row["kind"] in ("none", kind)]
    severities, name = range(len(rows)), found["name"]
    axes.plot(severities, [row["accuracy"] for row in rows], "o-", color=colour, markersize=4, label=name)
    lows, highs = [row["low"] for row in rows], [row["high"] for row in rows]
    axes.fill_between(severities, lows, highs, color=colour, alpha=0.15, linewidth=0)
    if any(row["answered"] < 1 for row in found["rows"]):
        axes.plot(severities, [row["answered"] for row in rows], ":", color=colour, label=f"answered by {name}")
