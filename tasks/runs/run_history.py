"""When a run has ended: its row in history.parquet, its page kept, and reports/history.html drawn again.

None of this may end a run whose work is done: what cannot be written waits for the next run, and is said. A report
counts only where its stage is up to date in this run, or stopped after it wrote it; what a run did not reach is None.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from regraft.core.config import Params, Paths
from regraft.core.errors import RegraftError
from regraft.core.files import DAMAGE, fingerprint, finite, read_json, write_bytes, write_text
from regraft.production.logs import Change
from regraft.production.records import Records, Standing
from regraft.production.run_history import CRASHED, NOTHING_NEW, ROWS, Row, add_rows, in_order, note_photos, read_rows
from regraft.reports.history_page import Production, drawn_rows, history_page, summary_of_week, trend_page
from regraft.reports.page import to_markdown
from tasks.dvc_files import data_version
from tasks.runs.current_run import RunRecord
from tasks.runs.git import NoGit, open_git
from tasks.runs.receipts import DONE, KEPT_RUNS, RUN

PAGE = "history.html"  # in the folder of the reports
_WAITING = Path(".dvc", "tmp", "regraft", "history")
_CHARTS = Path(".dvc", "tmp", "regraft", "history-chart")
_PATIENCE_SECONDS = 10.0  # another process that changes production is waited for; then the row waits
_READ = 1000  # of the newest rows: what pages show
_CLOCK_SECONDS = 0.1  # by which times of files may lag behind
_OF_DRIFT = {"no_drift", "no_slow_drift", "class_shares_as_before", "new_class_shares_as_before"}
_OF_DRIFT |= {"statistics_as_before"}
_FIGURES = {"population_stability": "distance", "far_share": "far photos", "shift": "shift"}


def add_to_history(params: Params, record: RunRecord) -> Row:
    """Add the row of a run that has ended, keep its page, and draw reports/history.html again; return the row."""
    found, dataset = _Found(params.paths, record), params.paths.dataset
    standing, _ = _production(params)
    row = _row_of(params, found, standing.digest)
    if found.is_current("preprocess") and dataset.is_file():
        with _said("what became of photos since the run before"):
            changes = note_photos(params.paths.production, dataset, patience=_PATIENCE_SECONDS)
            if changes:
                row = replace(row, new=changes.new, gone=changes.gone, relabelled=changes.relabelled)
    _add(params, row)
    with _said("the report of this run"):
        _keep_page(params, found)
    with _said(f"{params.paths.reports / PAGE}"):
        write_history_page(params, standing)
    return row


def add_crashed(params: Params, run: str, started: datetime, started_by: str, words: str) -> Row:
    """Add the row of a run whose process died, and return it; one that the run itself has added stays, and is it."""
    row = Row(run=run, started=started, started_by=started_by, name=CRASHED, reason=words)
    _add(params, row)
    with _said(f"{params.paths.reports / PAGE}"):
        write_history_page(params)
    return next((known for known in rows_of(params) if known.run == run), row)


def rows_of(params: Params) -> list[Row]:
    """Return the newest rows, the oldest in front, with those that wait; none of a damaged file."""
    try:
        rows = read_rows(params.paths.production, last=_READ)
    except (RegraftError, OSError):
        rows = []
    known = {row.run for row in rows}
    return in_order([*rows, *(row for row in _waiting() if row.run not in known)])


def write_history_page(params: Params, standing: Standing | None = None) -> Path:
    """Draw reports/history.html, and return its path; `standing` if it is known, as a big model takes long to read."""
    rows, (standing, history) = rows_of(params), _production(params, standing)
    since = history[-1].at if history and history[-1].sha256 == standing.digest else None
    production = Production(standing.digest, since, standing.problem)
    kept = {path.stem for path in _pages(params)}
    links = {row.run: f"runs/{row.run}.html" for row in rows if row.run in kept}
    path = params.paths.reports / PAGE
    write_text(path, history_page(rows, production, links, datetime.now(UTC), _chart(rows)))
    return path


def trend(params: Params) -> str:
    """Return the same in short as Markdown, for an artifact of the run."""
    rows = rows_of(params)
    return to_markdown(trend_page(rows, _chart(rows)))


def week(params: Params) -> str:
    """Return what a person should know of the last seven days."""
    return summary_of_week(rows_of(params), datetime.now(UTC))


class _Found:
    """What one run found out, from its record and the reports of its stages."""

    def __init__(self, paths: Paths, record: RunRecord) -> None:
        self.paths, self.record = paths, record
        self.outcomes = {stage.name: stage.outcome for stage in record.stages}
        of_stage = {"validate_data": "validation.json", "check_features": "embeddings.json"}
        # A check that stops the run has found that out as well.
        self.checks = [self.report(stage, name, stage in self.outcomes) for stage, name in of_stage.items()]
        self.gate = self.report("", "gate.json", True)

    def is_current(self, stage: str) -> bool:
        """Whether a stage's outputs are those of this run's photos and params."""
        if not self.outcomes:  # asked of DVC all at once, and nothing was left to do
            return bool(stage) and self.record.name in NOTHING_NEW
        return self.outcomes.get(stage) in DONE

    def report(self, stage: str, name: str, if_written: bool = False) -> dict[str, Any]:
        """Return a report of a stage; {} where this run has none, or where something else lies in its place."""
        path = self.paths.reports / name
        if not (self.is_current(stage) or (if_written and self.is_written(path))):
            return {}
        try:
            found = finite(read_json(path))
        except (FileNotFoundError, RegraftError):
            return {}
        return found if isinstance(found, dict) else {}

    def is_written(self, path: Path) -> bool:
        """Whether this run wrote a file."""
        try:
            return path.stat().st_mtime >= self.record.started.timestamp() - _CLOCK_SECONDS
        except OSError:
            return False


def _row_of(params: Params, found: _Found, champion: str | None) -> Row:
    """Return the row of a run, but for what became of photos since the run before."""
    record = found.record
    # A run of the gate alone has no stage, and the gate's figures.
    metrics = found.report("evaluate", "metrics.json")
    test = _of(metrics, dict, "test") or _of(found.gate, dict, "challenger")
    dataset, former = found.report("preprocess", "dataset.json"), _of(found.gate, dict, "champion")
    has_run = found.outcomes.get("cache_features") == "Ran"
    features = found.report("cache_features", "features.json") if has_run else {}
    nothing = 0 if found.is_current("cache_features") and not has_run else None
    classes, export = _of(dataset, dict, "classes"), found.report("export_onnx", "export.json")
    data = data_version(params) if found.is_current("record_data") else None
    drift, drift_of = _drift(*found.checks)
    seconds: dict[str, float] = {}
    for stage in record.stages:
        seconds[stage.name] = round(seconds.get(stage.name, 0.0) + stage.seconds, 3)
    return Row(
        run=record.run,
        started=record.started,
        ended=record.ended,
        started_by=record.started_by,
        name=record.name,
        reason=record.words,
        url=record.url,
        accuracy=_of(test, float, "accuracy"),
        accuracy_low=_of(test, float, "accuracy_low"),
        accuracy_high=_of(test, float, "accuracy_high"),
        test_photos=_of(test, int, "images"),
        champion_accuracy=_of(former, float, "accuracy"),
        champion_low=_of(former, float, "accuracy_low"),
        champion_high=_of(former, float, "accuracy_high"),
        photos=_of(dataset, int, "images"),
        classes=len(classes) if classes else None,
        quarantined=_of(found.checks[0], int, "files", "quarantine"),
        from_store=_of(features, int, "from_store") if features else nothing,
        computed=_of(features, int, "computed") if features else nothing,
        seconds=seconds,
        data_version=str(data["md5"]).removesuffix(".dir") if data else None,
        revision=_revision(params),
        model=_of(export, str, "sha256") or _of(found.gate, str, "about", "model"),
        champion=champion,
        drift=drift,
        drift_of=drift_of,
        drift_warned=not _OF_DRIFT.isdisjoint(_warned(found.checks)) if any(found.checks) else None,
        warnings=len(_warned(found.checks)) if any(found.checks) else None,
    )


def _revision(params: Params) -> str | None:
    """Return the commit, with a + if files that decide results were edited since; what runs write does not count."""
    raw = params.paths.raw
    written = ["dvc.lock", f"{raw}.dvc", str(raw.parent / ".gitignore"), params.paths.splits]
    but = [f":(exclude){path}" for path in (*written, params.paths.renewals, params.paths.receipts)]
    try:
        git = open_git(Path())
        edited = git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no", "--", ".", *but)
        revision = git.revision()
    except NoGit:
        return None
    return revision[:12] + ("+" if edited else "") if revision else None


def _drift(validation: dict[str, Any], embeddings: dict[str, Any]) -> tuple[float | None, str | None]:
    """Return the largest figure of drift over its limit, and what it is about."""
    found: list[tuple[float, str]] = []
    for each in _rows_in(validation, "drift"):
        psi, limit = _of(each, float, "psi"), _of(each, float, "limit")
        if psi is not None and limit:
            what = f"{_of(each, str, 'quantity')} of {_of(each, str, 'photos')} photos, index {psi:.2f}"
            found.append((psi / limit, what))
    for each in _rows_in(embeddings, "drift"):
        for name, words in _FIGURES.items():
            value, limit = (_of(each, float, "figures", key) for key in (name, f"{name}_limit"))
            if value is not None and limit:
                found.append((value / limit, f"{words} of the features of new photos, {value:.2f}"))
    return max(found) if found else (None, None)


def _warned(checks: list[dict[str, Any]]) -> list[str]:
    """Return the names of the expectations of severity warn or error that are violated."""
    rows = [each for report in checks for each in _rows_in(report, "expectations")]
    violated = [row for row in rows if row.get("success") is False and row.get("severity") in ("warn", "error")]
    return [str(row.get("name")) for row in violated]


def _of(report: Any, kind: type, *keys: str) -> Any:
    """Return a value deep in a report, of some type; None, or {} for an object, where that is not there."""
    for key in keys:
        report = report.get(key) if isinstance(report, dict) else None
    if isinstance(report, bool) or not isinstance(report, (int, float) if kind is float else kind):
        return {} if kind is dict else None
    return float(report) if kind is float else report


def _rows_in(report: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = report.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _chart(rows: Sequence[Row]) -> bytes | None:
    """Return the chart. One of the same runs is not drawn again: a run with nothing to do imports no matplotlib."""
    drawn = drawn_rows(rows)
    if not drawn:
        return None
    path = _CHARTS / f"{fingerprint([str(row) for row in drawn])}.png"
    if not path.exists():
        from regraft.reports.history_chart import history_chart

        for old in _CHARTS.glob("*.png"):
            old.unlink(missing_ok=True)
        write_bytes(path, history_chart(drawn))
    return path.read_bytes()


def _production(params: Params, standing: Standing | None = None) -> tuple[Standing, list[Change]]:
    """What is in production, unless that is known, and its story; where nobody can tell, why."""
    try:
        records = Records(params.paths.production)
    except RegraftError as error:  # its address cannot be reached, and this run has ended for that reason
        return Standing(None, str(error), None), []
    return standing or records.standing(), records.history()


def _add(params: Params, row: Row) -> None:
    """Add a row and those that wait; where that is impossible now, let it wait as well."""
    waiting = _WAITING / f"{row.run}.json" if RUN.fullmatch(row.run) else None
    try:
        rows = [*_waiting(), row]
        if words := add_rows(params.paths.production, rows, patience=_PATIENCE_SECONDS):
            print(words, file=sys.stderr, flush=True)
        for each in rows:
            (_WAITING / f"{each.run}.json").unlink(missing_ok=True)
    except (RegraftError, OSError) as error:
        print(f"The history of runs could not be written: {error}", file=sys.stderr, flush=True)
        if waiting:
            with _said("the row that waits for the next run"):
                write_bytes(waiting, ROWS.dump_json([row]))


def _waiting() -> list[Row]:
    rows = []
    for path in sorted(_WAITING.glob("*.json")):
        try:
            rows += [row for row in ROWS.validate_json(path.read_bytes()) if row.run == path.stem]
        except (OSError, ValidationError):
            continue
    return rows


def _keep_page(params: Params, found: _Found) -> None:
    """Keep a copy of the page that this run wrote; of one that validation stopped, the page that names the photos."""
    reports, run = params.paths.reports, found.record.run
    written = [name for name in ("report.html", "validation.html") if found.is_written(reports / name)]
    if not written or not RUN.fullmatch(run) or (written[0] != "report.html" and found.is_current("validate_data")):
        return
    page = (reports / written[0]).read_bytes()
    write_bytes(reports / "runs" / f"{run}.html", page.replace(b'href="validation.html"', b'href="../validation.html"'))
    for path in _pages(params)[:-KEPT_RUNS]:
        path.unlink(missing_ok=True)


def _pages(params: Params) -> list[Path]:
    """The pages that are kept, the oldest first."""
    return sorted(path for path in (params.paths.reports / "runs").glob("*.html") if RUN.fullmatch(path.stem))


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Say what could not be written, and go on: the run is done."""
    try:
        yield
    except (RegraftError, *DAMAGE) as error:
        print(f"Not written: {what}. {error}", file=sys.stderr, flush=True)
