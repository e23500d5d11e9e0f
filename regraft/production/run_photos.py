"""history_photos.parquet: which photos the last run had, so that the next one knows what joined and what left.

Of each photo the first bytes of its digest and its class are kept: nine bytes a photo, and two of a million photos are
taken for one with a chance of one in forty million.
"""

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regraft.core.files import DAMAGE, open_regular, sha256_of, write_bytes
from regraft.production.exclusive import exclusive, repeated
from regraft.production.lock import PATIENCE_SECONDS
from regraft.production.mirror import refreshed

FILE = "history_photos.parquet"  # in the folder of production
_DIGITS = 16  # of a digest
_VERSION = b"dataset"


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of the photos since the run before."""

    new: int
    gone: int
    relabelled: int


@repeated
def note_photos(folder: Path, dataset: Path, *, patience: float = PATIENCE_SECONDS) -> Changes | None:
    """Compare the photos of a data set with those that were noted last, and note them.

    Args:
        folder: models/production.
        dataset: build/dataset.parquet. If its bytes are those of the last time, nothing is read.
        patience: so many seconds another process that changes production is waited for.

    Returns:
        None where nothing was noted before, or where that or the data set is damaged.

    Raises:
        RegraftError: the file cannot be written.
    """
    version, before = sha256_of(dataset).encode(), _noted(refreshed(folder) / FILE)
    if before is not None and before.schema.metadata.get(_VERSION) == version:
        return Changes(0, 0, 0)
    try:
        now = _photos(dataset)
    except DAMAGE:
        return None
    contents = BytesIO()
    pq.write_table(now.replace_schema_metadata({_VERSION: version}), contents, write_page_checksum=True)
    with exclusive(folder, "noting the photos of a run", patience=patience):
        write_bytes(folder / FILE, contents.getvalue())
    return None if before is None else _compared(before, now)


def _photos(dataset: Path) -> pa.Table:
    rows = pq.read_table(dataset, columns=["digest", "class_name"])
    digests = pc.utf8_slice_codeunits(rows["digest"].cast(pa.string()), 0, _DIGITS)
    numbers = pa.array([int(digest, 16) for digest in digests.to_pylist()], pa.uint64())
    classes = rows["class_name"].cast(pa.string()).combine_chunks().dictionary_encode()
    return pa.table({"photo": numbers, "class_name": classes})


def _compared(before: pa.Table, now: pa.Table) -> Changes:
    compute: Any = pc  # its functions are made when it is imported
    places = compute.index_in(now["photo"], value_set=before["photo"].combine_chunks())
    stayed = compute.is_valid(places)
    classes = before["class_name"].cast(pa.string()).take(places.filter(stayed))
    same = compute.sum(compute.equal(classes, now["class_name"].cast(pa.string()).filter(stayed))).as_py() or 0
    both = compute.sum(stayed).as_py() or 0
    return Changes(new=len(now) - both, gone=len(before) - both, relabelled=both - same)


def _noted(path: Path) -> pa.Table | None:
    try:
        with open_regular(path, os.O_NOFOLLOW) as file:
            table = pq.read_table(pa.BufferReader(file.read()), page_checksum_verification=True)
        if table.column_names != ["photo", "class_name"] or table["photo"].type != pa.uint64():
            return None
        table["class_name"].cast(pa.string())
    except DAMAGE:
        return None
    return table if table.schema.metadata else None
