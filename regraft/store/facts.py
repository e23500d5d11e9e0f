"""Facts of contents: what is known of photos by their bytes, on this machine and in the shared store.

    <root>/facts/<fingerprint>/<random>.contents.parquet    what a decoder said, by the SHA-256 of the bytes
    <root>/facts/<fingerprint>/<random>.versions.parquet    the SHA-256 of what lay at an address under an ETag
    <root>/facts/<fingerprint>/used                         empty, as old as the last use, so that `gc` sees it

The fingerprint stands for everything that can change what a decoder says: its code, the libraries, the limit of
pixels. Files are immutable and sealed, and have the same names in the shared store. So several machines need no lock:
each copies the files that it lacks and sends those that the other lacks. They are small, some hundred bytes a photo;
where there are many, `fact_files.py` makes one of them. What is damaged is removed and counts as not known: the photo
is decoded again.

Addresses are not kept, but a SHA-256 of each with its ETag.
"""

import hashlib
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from regraft.core.config import Params
from regraft.core.files import fingerprint, replacing, writing
from regraft.core.provenance import provenance_of
from regraft.photos.images import Threads
from regraft.photos.known import ContentFacts, Version
from regraft.store.fact_files import (
    CONNECTIONS,
    FOLDER,
    MANY,
    SCHEMAS,
    kind_of,
    merge,
    names_in,
    note_use,
    read_facts,
    send_facts,
    superfluous,
    write_facts,
)
from regraft.store.joining import open_shared
from regraft.store.names import is_facts
from regraft.store.remote import Remote

_FEW = 16  # rows that are read value by value
_LISTINGS = 5  # of a folder whose files are merged while they are read
assert [each.name for each in fields(ContentFacts)] == SCHEMAS["contents"].names[1:]


class Facts:
    """What is known; `regraft.photos.known.KnownFacts` says how it is used. Nothing is read before it is asked for."""

    def __init__(self, root: Path, shared: str | None, *, max_pixels: int, merges: bool = False) -> None:
        """Look at nothing yet.

        Args:
            root: the store's folder.
            shared: the address of the shared store, or None.
            max_pixels: the limit of `DecodeLimits`.
            merges: whether many small files become one: of processes that work together, one does that.
        """
        decides = [provenance_of("regraft.photos.inspector").digest, max_pixels]
        self._root, self._shared, self._merges = root, shared, merges
        self.name = f"{FOLDER}/{fingerprint(decides)[:16]}"  # of the folder, relative to the store's
        self._folder = root / self.name
        self._remote: Remote | None = None
        self._lock = threading.RLock()  # the first who ask are threads of the scan
        self._contents: _Table | None = None
        self._versions: _Table | None = None

    def find(self, digests: Collection[str]) -> dict[str, ContentFacts]:
        """Return what is known of contents, by their SHA-256."""
        if not digests:
            return {}
        self._load()
        assert self._contents
        found = self._contents.find([bytes.fromhex(digest) for digest in digests])
        return {digest.hex(): ContentFacts(*facts) for digest, *facts in found}

    def digests_of(self, versions: Collection[Version]) -> dict[Version, str]:
        """Return the SHA-256 of what lay at addresses under an ETag."""
        if not versions:
            return {}
        self._load()
        assert self._versions
        keys = {_key(version): version for version in versions}
        return {keys[version]: digest.hex() for version, digest in self._versions.find(list(keys))}

    def add(self, contents: Mapping[str, ContentFacts], versions: Mapping[Version, str]) -> None:
        """Remember both, here and in the shared store."""
        if contents:
            self._write("contents", [(bytes.fromhex(digest), *astuple(facts)) for digest, facts in contents.items()])
        if versions:
            self._write("versions", [(_key(version), bytes.fromhex(digest)) for version, digest in versions.items()])

    def _load(self) -> None:
        """Read all files, after copying those of the shared store that are not here."""
        with self._lock:
            if self._versions is None:
                self._read_all()

    def _read_all(self) -> None:
        remote = self._reached()
        there = self._fetch_absent(remote) if remote else set()
        tables = self._read_here()
        if remote and tables.keys() - there:
            for name in superfluous(tables, there):
                (self._folder / name).unlink(missing_ok=True)
                del tables[name]
            # list: to use up what Threads yields.
            absent = sorted(tables.keys() - there)
            list(Threads(CONNECTIONS).map(lambda name: send_facts(self._folder, remote, self.name, name), absent))
        if tables:
            note_use(self._folder, remote, self.name)
        if self._merges:
            merge(self._folder, remote, self.name, many=MANY)
        by_kind = {kind: [tables[name] for name in tables if kind_of(name) == kind] for kind in SCHEMAS}
        self._contents, self._versions = (_Table(by_kind[kind], SCHEMAS[kind]) for kind in ("contents", "versions"))

    def _read_here(self) -> dict[str, pa.Table]:
        """Return the rows that are here, by the name of their file."""
        found: dict[str, pa.Table | None] = {}
        for _ in range(_LISTINGS):
            new = [name for name in names_in(self._folder) if name not in found]
            if not new:
                break
            found |= {name: read_facts(self._folder / name) for name in new}
        return {name: table for name, table in found.items() if table is not None}

    def _fetch_absent(self, remote: Remote) -> set[str]:
        """Copy what only the shared store has; return the names of the files there."""
        there: set[str] = set()
        for _ in range(_LISTINGS):
            there = {name for name in remote.sizes(self.name) if is_facts(name)}
            absent = sorted(there.difference(names_in(self._folder)))
            with writing(self._folder):
                are_here = list(Threads(CONNECTIONS).map(lambda name: self._fetch(remote, name), absent))
            if all(are_here):
                break
        return there

    def _fetch(self, remote: Remote, name: str) -> bool:
        """Copy a file; False if it is not there any more, since it was merged a moment ago."""
        try:
            with replacing(self._folder / name) as part:
                remote.fetch(f"{self.name}/{name}", part)
        except FileNotFoundError:
            return False
        return True

    def _write(self, kind: str, rows: Sequence[tuple[Any, ...]]) -> None:
        schema = SCHEMAS[kind]
        columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)]
        name = write_facts(self._folder, kind, pa.table(columns, schema=schema))
        if remote := self._reached():
            send_facts(self._folder, remote, self.name, name)

    def _reached(self) -> Remote | None:
        with self._lock:
            if self._shared and not self._remote:
                self._remote = open_shared(self._root, self._shared, may_create=True)
            return self._remote


def open_facts(params: Params) -> Facts:
    """Return what is known, as params.yaml says where."""
    pixels = params.validate_data.max_pixels
    return Facts(params.paths.store, params.machine.shared_store, max_pixels=pixels, merges=True)


class _Table:
    """Rows by their first column, of which the first one counts where several machines found out the same."""

    def __init__(self, tables: list[pa.Table], schema: pa.Schema) -> None:
        table = pa.concat_tables(tables) if tables else schema.empty_table()
        self._columns = [column.combine_chunks() for column in table.columns]
        keys = _as_array(self._columns[0].to_pylist())
        self._keys, self._rows = np.unique(keys, return_index=True)

    def find(self, keys: list[bytes]) -> list[list[Any]]:
        """Return the rows of those keys that are there, a value per column."""
        if not len(self._keys):
            return []
        wanted = _as_array(keys)
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        rows = self._rows[places[self._keys[places] == wanted]]
        if len(rows) > _FEW:
            columns = (column.take(pa.array(rows)).to_pylist() for column in self._columns)
            return list(map(list, zip(*columns, strict=True)))
        # By value: a scan of files asks for one row at a time, and `take` costs ten times as much for one.
        return [[column[row].as_py() for column in self._columns] for row in rows.tolist()]


def _as_array(keys: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(keys), "S32")


def _key(version: Version) -> bytes:
    return hashlib.sha256("\n".join(version).encode()).digest()
