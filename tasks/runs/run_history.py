"""When a run has ended: its row in history.parquet, its pages kept, and reports/history.html drawn again.

None of this may end a run whose work is done. What cannot be written now is kept in .dvc/tmp/regraft/history and goes
into the history with the next run; whatever went wrong is said.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.files import DAMAGE, fingerprint, write_bytes, write_text
from regraft.production.change_log import Change
from regraft.production.records import Records, Standing
from regraft.production.run_history import CRASHED, ROWS, Row, add_rows, in_order, read_rows
from regraft.production.run_photos import note_photos
from regraft.reports.history_page import Production, drawn_rows, history_page, summary_of_week, trend_page
from regraft.reports.page import to_markdown
from tasks.runs.current_run import RunRecord
from tasks.runs.receipts import KEPT_RUNS, RUN
from tasks.runs.run_facts import Facts, row_of

PAGE = "history.html"  # in the folder of the reports
_WAITING = Path(".dvc", "tmp", "regraft", "history")
_CHARTS = Path(".dvc", "tmp", "regraft", "history-chart")
_PATIENCE_SECONDS = 10.0  # another process that changes production is waited for; then the row waits
_READ = 1000  # of the newest rows: what pages show


def add_to_history(params: Params, record: RunRecord) -> Row:
    """Add the row of a run that has ended, keep its pages, and draw reports/history.html again; return the row.

    Nothing is raised for what a disk, a lock or a damaged file refuses: it is said, and the row waits for the next run.
    """
    facts, dataset = Facts(params.paths, record), params.paths.dataset
    standing, _ = _production(params)
    row = row_of(params, facts, standing.digest)
    if facts.is_current("preprocess") and dataset.is_file():
        with _said("what became of photos since the run before"):
            changes = note_photos(params.paths.production, dataset, patience=_PATIENCE_SECONDS)
            if changes:
                row = replace(row, new=changes.new, gone=changes.gone, relabelled=changes.relabelled)
    _add(params, row)
    with _said("the report of this run"):
        _keep_page(params, facts)
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
    """Draw reports/history.html, and return its path.

    Args:
        params: all settings.
        standing: what is in production, if that is known already; a big model takes a while to read.
    """
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


def _keep_page(params: Params, facts: Facts) -> None:
    """Keep a copy of the page that this run wrote; of one that validation stopped, the page that names the photos."""
    reports, run = params.paths.reports, facts.record.run
    written = [name for name in ("report.html", "validation.html") if facts.is_written(reports / name)]
    if not written or not RUN.fullmatch(run) or (written[0] != "report.html" and facts.is_current("validate_data")):
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
