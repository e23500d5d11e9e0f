"""The history of runs: one row per run, whatever started it and however it ended; the morning page is drawn from it.

    models/production/
        history.parquet                  the rows, an ordinary Parquet file
        history.damaged-<time>.parquet   a damaged one that was set aside
        history_photos.parquet           the photos of the last run: 8 bytes of each digest, and the class

Both files are replaced at once, under the lock of production. A column that this version does not know is kept, and one
that an older version did not write reads as None.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import asdict, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from regraft.core.addresses import shown_path
from regraft.core.errors import Damaged
from regraft.core.files import DAMAGE, finite, open_regular, sha256_of, write_bytes
from regraft.production.exclusive import PATIENCE_SECONDS, exclusive, refreshed, repeated

FILE, PHOTOS = "history.parquet", "history_photos.parquet"  # in the folder of production
CRASHED = "Crashed"
UNFINISHED = ("Failed", CRASHED, "Cancelled")  # names of runs that reached no verdict; with any other the work is done
NOTHING_NEW = ("Already in production", "Nothing new", "Completed")  # production is as it was, as expected
_NO_FILE = (errno.ELOOP, errno.EINVAL, errno.EISDIR)  # a link, a pipe, a folder
_DIGITS = 16  # of a photo's digest: two of a million photos are taken for one with a chance of one in forty million
_VERSION = b"dataset"  # in the metadata of PHOTOS: SHA-256 of the data set


@dataclass(frozen=True, slots=True)
class Row:
    """One run. None is what it did not find out: it never stands for a figure of an earlier run."""

    run: str
    started: datetime  # UTC, as all times
    name: str  # of the state that it ended in
    ended: datetime | None = None  # None of a process that died: nobody knows when
    started_by: str = ""
    reason: str = ""  # the sentence for a person
    url: str | None = None
    accuracy: float | None = None  # of the new model on the test photos, 0 to 1, with its 95 % interval
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    test_photos: int | None = None
    champion_accuracy: float | None = None  # of the model that was in production before, on photos that neither knew
    champion_low: float | None = None
    champion_high: float | None = None
    photos: int | None = None  # of the data set
    new: int | None = None  # photos that joined since the last run that had a data set
    gone: int | None = None
    relabelled: int | None = None
    classes: int | None = None
    quarantined: int | None = None
    from_store: int | None = None  # views
    computed: int | None = None  # forward passes of the frozen backbone
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    data_version: str | None = None  # MD5 of the data folder, as DVC names the version
    revision: str | None = None  # of the project in git, with a + where its files were edited since
    model: str | None = None  # SHA-256 of the new model
    champion: str | None = None  # SHA-256 of the model in production afterwards
    drift: float | None = None  # the largest figure of drift, as a multiple of its limit
    drift_of: str | None = None  # which figure that is
    drift_warned: bool | None = None
    warnings: int | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the run did its work, also one that ends with a refusal."""
        return self.name not in UNFINISHED

    @property
    def is_in_production(self) -> bool:
        """Whether the new model is the one in production afterwards; else its accuracy is that of a candidate."""
        return self.model is not None and self.model == self.champion

    @property
    def is_promoted(self) -> bool:
        """Whether the new model is in production afterwards, and was not before."""
        return self.is_in_production and self.is_finished and self.name not in NOTHING_NEW

    @property
    def production(self) -> tuple[float, float, float] | None:
        """The accuracy of the model that is in production afterwards, with its interval, as far as it is known."""
        own = self.accuracy, self.accuracy_low, self.accuracy_high
        former = self.champion_accuracy, self.champion_low, self.champion_high
        value, low, high = own if self.is_in_production else former
        if value is None:
            return None
        return value, value if low is None else low, value if high is None else high


ROWS = TypeAdapter(list[Row])
_TEXTS = ("run", "name", "started_by", "reason", "url", "data_version", "revision", "model", "champion", "drift_of")
_COUNTS = ("test_photos", "photos", "new", "gone", "relabelled", "classes", "quarantined", "from_store", "computed")
_KINDS: dict[str, pa.DataType] = {
    **dict.fromkeys(Row.__dataclass_fields__, pa.float64()),
    **dict.fromkeys(_TEXTS, pa.string()),
    **dict.fromkeys((*_COUNTS, "warnings"), pa.int64()),
    **dict.fromkeys(("started", "ended"), pa.timestamp("us", tz="UTC")),
    "seconds": pa.map_(pa.string(), pa.float64()),
    "drift_warned": pa.bool_(),
}
_SCHEMA = pa.schema(list(_KINDS.items()))
_NEEDED = ("run", "started", "name")


def read_rows(folder: Path, *, last: int | None = None) -> list[Row]:
    """Return the rows, the oldest first as in `in_order`; none where there is no file.

    Args:
        folder: models/production.
        last: so many of those that were added last; None for all.

    Raises:
        Damaged: the file is damaged, or another one.
    """
    table = _read(refreshed(folder) / FILE)
    if last is not None:
        table = table.slice(max(0, len(table) - last))
    rows = []
    for values in table.select([name for name in _KINDS if name in table.column_names]).to_pylist():
        values["seconds"] = dict(values.get("seconds") or [])
        try:
            rows.append(Row(**{name: value for name, value in finite(values).items() if value is not None}))
        except ValidationError:
            continue
    return in_order(rows)


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Return rows in the order of the runs, given them as they were added.

    A run that crashed is added by a later one. All others are added when they end, and of these the clock may have been
    set back in between.
    """
    times, latest = [], None
    for row in rows:
        if row.name != CRASHED:
            latest = row.started if latest is None else max(latest, row.started)
        times.append(row.started if row.name == CRASHED else latest)
    return [rows[place] for place in sorted(range(len(rows)), key=times.__getitem__)]


@repeated
def add_rows(folder: Path, rows: Sequence[Row], *, patience: float = PATIENCE_SECONDS) -> str:
    """Add rows; one of a run that is there already replaces it, unless it says that the run crashed.

    Args:
        folder: models/production.
        rows: to add.
        patience: so many seconds another process that changes production is waited for.

    Returns:
        A sentence about a damaged file that was set aside, or nothing.

    Raises:
        Busy: another process is changing production.
        RegraftError: the file cannot be written.
    """
    path = folder / FILE
    with exclusive(folder, "adding to the history of runs", patience=patience):
        try:
            table, words = _read(path), ""
        except Damaged:
            aside = path.with_name(f"history.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}.parquet")
            path.rename(aside)
            words = f"{shown_path(path)} is damaged. It was set aside as {aside.name}; a new history begins."
            table = _SCHEMA.empty_table()
        known = table["run"].to_pylist()
        # A process that finds a dead one may be too late: the run itself knows better how it ended.
        rows = [row for row in rows if row.name != CRASHED or row.run not in known]
        added = {row.run for row in rows}
        table = table.filter(pa.array([run not in added for run in known], pa.bool_()))
        new = pa.Table.from_pylist([{**asdict(row), "seconds": list(row.seconds.items())} for row in rows], _SCHEMA)
        write_bytes(path, _contents(pa.concat_tables([table, new], promote_options="default")))
    return words


def _read(path: Path) -> pa.Table:
    """Return the table, its known columns of the kinds that they should have."""
    try:
        table = _table(path)
        missing = [name for name in _NEEDED if name not in table.column_names]
        if missing or len(set(table.column_names)) < len(table.column_names):
            raise ValueError(f"the columns {', '.join(table.column_names)[:200]}")
        for place, name in enumerate(table.column_names):
            if name in _KINDS:
                table = table.set_column(place, _SCHEMA.field(name), table[name].cast(_KINDS[name]))
        table.validate(full=True)
    except FileNotFoundError:
        return _SCHEMA.empty_table()
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, *_NO_FILE):
            raise
        raise Damaged.of(path, "the history of runs", f"{type(error).__name__} {error}"[:200]) from None
    return table


def _table(path: Path) -> Any:
    with open_regular(path, os.O_NOFOLLOW) as file:
        return pq.read_table(pa.BufferReader(file.read()), page_checksum_verification=True)


def _contents(table: pa.Table) -> bytes:
    contents = BytesIO()
    pq.write_table(table, contents, write_page_checksum=True)
    return contents.getvalue()


@dataclass(frozen=True, slots=True)
class Changes:
    """How the photos changed since the run before."""

    new: int
    gone: int
    relabelled: int


@repeated
def note_photos(folder: Path, dataset: Path, *, patience: float = PATIENCE_SECONDS) -> Changes | None:
    """Compare the photos of a data set with those that were recorded last, and record them.

    Args:
        folder: models/production.
        dataset: build/dataset.parquet. If its bytes are those of the last time, nothing is read.
        patience: so many seconds another process that changes production is waited for.

    Returns:
        None where nothing was recorded before, or where that or the data set is damaged.

    Raises:
        RegraftError: the file cannot be written.
    """
    version, before = sha256_of(dataset).encode(), _photos_before(refreshed(folder) / PHOTOS)
    if before is not None and (before.schema.metadata or {}).get(_VERSION) == version:
        return Changes(0, 0, 0)
    try:
        rows = pq.read_table(dataset, columns=["digest", "class_name"])
        digests = pc.utf8_slice_codeunits(rows["digest"].cast(pa.string()), 0, _DIGITS)
        numbers = pa.array([int(digest, 16) for digest in digests.to_pylist()], pa.uint64())
        classes = rows["class_name"].cast(pa.string()).combine_chunks().dictionary_encode()
        now = pa.table({"photo": numbers, "class_name": classes})
    except DAMAGE:
        return None
    with exclusive(folder, "recording the photos of a run", patience=patience):
        write_bytes(folder / PHOTOS, _contents(now.replace_schema_metadata({_VERSION: version})))
    return None if before is None else _compared(before, now)


def _photos_before(path: Path) -> pa.Table | None:
    try:
        table = _table(path)
        return table.select(["photo", "class_name"]).set_column(0, "photo", table["photo"].cast(pa.uint64()))
    except DAMAGE:
        return None


def _compared(before: pa.Table, now: pa.Table) -> Changes:
    compute: Any = pc  # its functions are made when it is imported
    places = compute.index_in(now["photo"], value_set=before["photo"].combine_chunks())
    stayed = compute.is_valid(places)
    classes = before["class_name"].cast(pa.string()).take(places.filter(stayed))
    same = compute.sum(compute.equal(classes, now["class_name"].cast(pa.string()).filter(stayed))).as_py() or 0
    both = compute.sum(stayed).as_py() or 0
    return Changes(new=len(now) - both, gone=len(before) - both, relabelled=both - same)
