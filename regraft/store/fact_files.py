"""Files of facts: how they are called, read, written and merged, here and in the shared store.

A merged file has the rows of several, which go once it is in its place. So a kill leaves some rows twice and none
missing. Another machine may still have the files that were merged, and has to know: a file whose rows are all in files
of the shared store is not sent.
"""

import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from regraft.core.errors import Damaged, RegraftError
from regraft.core.files import writing
from regraft.core.sealed import read_table, write_table
from regraft.photos.images import Threads
from regraft.photos.known import IMAGE_SCHEMA
from regraft.store.names import FACTS_USED, is_facts
from regraft.store.remote import Remote

_DAY = 86_400
FOLDER = "facts"  # of the store; one folder in it for each fingerprint
CONNECTIONS = 8  # to the shared store
MANY = 64  # files of a kind that are not large: a run merges more
_LARGE = 32_000_000  # bytes of a file that is left as it is
_MERGED = 4 * _LARGE  # bytes that are merged into one
_KEY = pa.binary(32)
# The first column is the key.
SCHEMAS = {
    "contents": pa.schema([("digest", _KEY), *IMAGE_SCHEMA, ("start", pa.binary()), ("bytes", pa.int64())]),
    "versions": pa.schema([("version", _KEY), ("digest", _KEY)]),
}


def names_in(folder: Path) -> list[str]:
    """Return the names of the files of facts in a folder, in order."""
    return sorted(path.name for path in folder.iterdir() if is_facts(path.name)) if folder.is_dir() else []


def kind_of(name: str) -> str:
    """Return what a file of facts holds, a key of `SCHEMAS`."""
    return name.split(".")[1]


def read_facts(path: Path) -> pa.Table | None:
    """Return the rows of a file; None if it is damaged, and then it goes, or if another process has removed it."""
    try:
        table = read_table(path)
        if table.schema.remove_metadata().equals(SCHEMAS[kind_of(path.name)]) and not table.column(0).null_count:
            return table.replace_schema_metadata(None)
    except FileNotFoundError:
        return None
    except Damaged:
        pass
    path.unlink(missing_ok=True)
    return None


def write_facts(folder: Path, kind: str, table: pa.Table) -> str:
    """Write rows as a new file, and return its name."""
    name = f"{uuid.uuid4().hex}.{kind}.parquet"
    with writing(folder):
        write_table(folder / name, table)
    return name


def send_facts(folder: Path, remote: Remote, address: str, name: str) -> None:
    """Send a file to the same folder of the shared store, unless another process has merged it a moment ago."""
    try:
        remote.send(folder / name, f"{address}/{name}")
    except RegraftError:
        if (folder / name).exists():
            raise


def note_use(folder: Path, remote: Remote | None, address: str) -> None:
    """Say once a day, here and in the shared store, that the facts of a folder are used, so that nobody collects them.

    Args:
        folder: with the files.
        remote: the shared store, or None.
        address: of the same folder in it.
    """
    with suppress(OSError):  # who may not write here can read all the same
        (folder / FACTS_USED).touch()
    if remote:
        used = None
        with suppress(RegraftError):  # some kinds of store know no times
            used = remote.modified(f"{address}/{FACTS_USED}")
        if used is None or time.time() - used > _DAY:
            remote.write(f"{address}/{FACTS_USED}", b"")


def keys_of(tables: Iterable[pa.Table]) -> np.ndarray:
    """Return the keys of all rows, 32 bytes each."""
    return np.frombuffer(b"".join(key for table in tables for key in table.column(0).to_pylist()), "S32")


def superfluous(tables: Mapping[str, pa.Table], there: set[str]) -> list[str]:
    """Return the names of those files that the shared store has not, and that say nothing that it does not say.

    Args:
        tables: all rows that are here, by the name of their file.
        there: the names of the files in the shared store.
    """
    found = []
    for kind in SCHEMAS:
        mine = {name: table for name, table in tables.items() if kind_of(name) == kind and name not in there}
        if not mine:
            continue
        known = keys_of(tables[name] for name in there & tables.keys() if kind_of(name) == kind)
        found += [name for name, table in mine.items() if np.isin(keys_of([table]), known).all()]
    return found


def merge(folder: Path, remote: Remote | None, address: str, *, many: int) -> tuple[int, int]:
    """Make few files of many that are not large, here and in the shared store; nobody needs to wait meanwhile.

    Args:
        folder: with the files.
        remote: the shared store, or None.
        address: of the same folder in it.
        many: so many files of a kind that are not large may stay.

    Returns:
        How many files there were here, and how many there are.
    """
    before = names_in(folder)
    for kind in SCHEMAS:
        sizes = {name: _size(folder / name) for name in before if kind_of(name) == kind}
        small = {name: size for name, size in sizes.items() if size < _LARGE}
        for group in _groups(small) if len(small) > many else ():
            _merge(folder, remote, address, group)
    return len(before), len(names_in(folder))


def _groups(sizes: Mapping[str, int]) -> list[list[str]]:
    """Return names in groups that fit into memory."""
    groups, total = [[]], 0
    for name, size in sizes.items():
        if total + size > _MERGED:
            groups, total = [*groups, []], 0
        groups[-1].append(name)
        total += size
    return groups


def _merge(folder: Path, remote: Remote | None, address: str, names: list[str]) -> None:
    tables = {name: table for name in names if (table := read_facts(folder / name)) is not None}
    if len(tables) < 2:
        return
    table = pa.concat_tables(tables.values())
    _, rows = np.unique(keys_of([table]), return_index=True)
    merged = write_facts(folder, kind_of(names[0]), table.take(rows))
    if remote:
        send_facts(folder, remote, address, merged)
        # list: to use up what Threads yields.
        list(Threads(CONNECTIONS).map(lambda name: remote.remove(f"{address}/{name}"), list(tables)))
    for name in tables:
        (folder / name).unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # merged by another process
        return _LARGE
