"""What `regraft measure` found out, as long as it is about the very files that the last run exported."""

from typing import Any

from regraft.errors import Damaged
from regraft.files import read_json
from regraft.reports.sources import Sources

HOW_TO = "`regraft measure` measures it; that takes minutes, so no run does."
_OTHER = "What was measured is about another file."


def digests(sources: Sources) -> dict[str, str | None]:
    """Return the SHA-256 of the file to ship, and of the one in int8 where there is another one."""
    model = read_json(sources.reports / "export.json", "sha256")["sha256"]
    try:
        int8 = read_json(sources.reports / "int8.json", "sha256")["sha256"]
    except (FileNotFoundError, Damaged):
        int8 = None
    return {"model": model, "int8": None if int8 == model else int8}


def latency_of(sources: Sources) -> dict[str, Any] | None:
    """Return what was measured of the speed of these files; None if nothing was, or of others."""
    report = _read(sources, "latency.json", "about", "rows")
    return report if report and report["about"] == digests(sources) else None


def robustness_of(sources: Sources) -> list[dict[str, Any]]:
    """Return what was measured of these files on damaged photos, the file to ship first; empty if nothing was."""
    report, current = _read(sources, "robustness.json", "files"), digests(sources)
    files = report["files"] if report else []
    if not any(each["sha256"] == current["model"] for each in files):
        return []
    return [each for each in files if each["sha256"] in current.values()]


def why_not(sources: Sources, name: str) -> str:
    """Return why there are no figures, and how to get them."""
    return f"{_OTHER} {HOW_TO}" if (sources.reports / name).exists() else f"Not measured yet. {HOW_TO}"


def _read(sources: Sources, name: str, *keys: str) -> dict[str, Any] | None:
    try:
        return read_json(sources.reports / name, *keys)
    except (FileNotFoundError, Damaged):  # it can be measured again
        return None
