"""The row of a run in history.parquet, from its record and from what its stages wrote.

A report counts only where its stage is up to date in this run, or stopped after it wrote it. Whatever a run did not
reach is None, and never the figure of an earlier run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regraft.core.config import Params, Paths
from regraft.core.errors import RegraftError
from regraft.core.files import finite, read_json
from regraft.production.run_history import NOTHING_NEW, Row
from tasks.dvc_files import data_version
from tasks.runs.current_run import RunRecord
from tasks.runs.git import NoGit, open_git

_CURRENT = ("Up to date", "Restored", "Recorded", "Ran")
_OF_DRIFT = (
    "no_drift",
    "no_slow_drift",
    "class_shares_as_before",
    "new_class_shares_as_before",
    "statistics_as_before",
)
_FIGURES = {"population_stability": "distance", "far_share": "far photos", "shift": "shift"}
_CLOCK_SECONDS = 0.1  # by which times of files may lag behind


class Facts:
    """What one run found out. JSON of any shape may lie where reports belong; what is none of ours tells nothing."""

    def __init__(self, paths: Paths, record: RunRecord) -> None:
        self.paths = paths
        self.record = record
        self.outcomes = {stage.name: stage.outcome for stage in record.stages}

    def is_current(self, stage: str) -> bool:
        """Whether a stage's outputs are those of this run's photos and params."""
        if not self.outcomes:  # asked of DVC all at once, and nothing was left to do
            return self.record.name in NOTHING_NEW
        return self.outcomes.get(stage) in _CURRENT

    def ran(self, stage: str) -> bool:
        """Whether this run worked a stage out."""
        return self.outcomes.get(stage) == "Ran"

    def report(self, stage: str, name: str) -> Any:
        """Return a report of a stage; {} where this run has none."""
        return _json(self.paths.reports / name) if self.is_current(stage) else {}

    def checks(self) -> list[Any]:
        """Return the reports of both checks; one that stops the run has found that out as well."""
        of_stage = {"validate_data": "validation.json", "check_features": "embeddings.json"}
        return [
            _json(self.paths.reports / name)
            if self.is_current(stage) or (stage in self.outcomes and self.is_written(self.paths.reports / name))
            else {}
            for stage, name in of_stage.items()
        ]

    def gate(self) -> Any:
        """Return what the gate said in this run; {} where it was not asked."""
        path = self.paths.reports / "gate.json"
        return _json(path) if self.is_written(path) else {}

    def is_written(self, path: Path) -> bool:
        """Whether this run wrote a file."""
        try:
            return path.stat().st_mtime >= self.record.started.timestamp() - _CLOCK_SECONDS
        except OSError:
            return False


def row_of(params: Params, facts: Facts, champion: str | None) -> Row:
    """Return the row of a run, but for what became of photos since the run before.

    Args:
        params: all settings.
        facts: what the run found out.
        champion: SHA-256 of the model that is in production now.
    """
    record = facts.record
    gate = facts.gate()
    # A run of the gate alone has no stage, and the gate's figures.
    test = _of(facts.report("evaluate", "metrics.json"), "test") or _of(gate, "challenger")
    dataset = facts.report("preprocess", "dataset.json")
    former = _of(gate, "champion")
    export = facts.report("export_onnx", "export.json")
    checks = facts.checks()
    features = facts.report("cache_features", "features.json") if facts.ran("cache_features") else {}
    nothing = 0 if facts.is_current("cache_features") and not facts.ran("cache_features") else None
    classes = _of(dataset, "classes")
    drift, drift_of = _drift(*checks)
    return Row(
        run=record.run,
        started=record.started,
        ended=record.ended,
        started_by=record.started_by,
        name=record.name,
        reason=record.words,
        url=record.url,
        accuracy=_number(test, "accuracy"),
        accuracy_low=_number(test, "accuracy_low"),
        accuracy_high=_number(test, "accuracy_high"),
        test_photos=_count(test, "images"),
        champion_accuracy=_number(former, "accuracy"),
        champion_low=_number(former, "accuracy_low"),
        champion_high=_number(former, "accuracy_high"),
        photos=_count(dataset, "images"),
        classes=len(classes) if classes else None,
        quarantined=_count(_of(checks[0], "files"), "quarantine"),
        from_store=_count(features, "from_store") if features else nothing,
        computed=_count(features, "computed") if features else nothing,
        seconds=_seconds(record),
        data_version=_data_version(params) if facts.is_current("record_data") else None,
        revision=_revision(params),
        model=_text(export, "sha256") or _text(_of(gate, "about"), "model"),
        champion=champion,
        drift=drift,
        drift_of=drift_of,
        drift_warned=_warned(checks, _OF_DRIFT) > 0 if any(checks) else None,
        warnings=_warned(checks) if any(checks) else None,
    )


def _seconds(record: RunRecord) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for stage in record.stages:
        seconds[stage.name] = round(seconds.get(stage.name, 0.0) + stage.seconds, 3)
    return seconds


def _data_version(params: Params) -> str | None:
    found = data_version(params)
    return str(found["md5"]).removesuffix(".dir") if found else None


def _revision(params: Params) -> str | None:
    """Return the commit, with a + if files that decide results were edited since; what runs write does not count."""
    raw = params.paths.raw
    written = ["dvc.lock", f"{raw}.dvc", str(raw.parent / ".gitignore"), params.paths.splits]
    written += [params.paths.renewals, params.paths.receipts]
    try:
        git = open_git(Path())
    except NoGit:
        return None
    but = [f":(exclude){path}" for path in written]
    said = git.ask(
        "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", ".", *but
    )
    lines = (said or "").splitlines()
    revision = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    if not revision or revision == "(initial)":
        return None
    return revision[:12] + ("" if all(line.startswith("#") for line in lines) else "+")


def _drift(validation: Any, embeddings: Any) -> tuple[float | None, str | None]:
    """Return the largest figure of drift over its limit, and what it is about."""
    found: list[tuple[float, str]] = []
    for each in _list(validation, "drift"):
        psi, limit = _number(each, "psi"), _number(each, "limit")
        if psi is not None and limit:
            found.append((psi / limit, f"{_text(each, 'quantity')} of {_text(each, 'photos')} photos, index {psi:.2f}"))
    for each in _list(embeddings, "drift"):
        figures = _of(each, "figures")
        for name, words in _FIGURES.items():
            value, limit = _number(figures, name), _number(figures, f"{name}_limit")
            if value is not None and limit:
                found.append((value / limit, f"{words} of the features of new photos, {value:.2f}"))
    return max(found) if found else (None, None)


def _warned(checks: list[Any], names: tuple[str, ...] | None = None) -> int:
    """How many expectations of severity warn or error are violated, of some names or of all."""
    return sum(
        each.get("success") is False and each.get("severity") in ("warn", "error")
        for report in checks
        for each in _list(report, "expectations")
        if names is None or each.get("name") in names
    )


def _json(path: Path) -> Any:
    try:
        found = read_json(path)
    except (FileNotFoundError, RegraftError):
        return {}
    return finite(found) if isinstance(found, dict) else {}


def _of(report: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = report.get(key)
    return value if isinstance(value, dict) else {}


def _list(report: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = report.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _number(report: Mapping[str, Any], key: str) -> float | None:
    value = report.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(report: Mapping[str, Any], key: str) -> int | None:
    value = report.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(report: Mapping[str, Any], key: str) -> str | None:
    value = report.get(key)
    return value if isinstance(value, str) else None
