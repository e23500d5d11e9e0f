"""Facts of contents: what is known of photos by their bytes, on this machine and in the shared store.

    <root>/facts/<fingerprint>/<random>.contents.parquet    what a decoder said, by the SHA-256 of the bytes
    <root>/facts/<fingerprint>/<random>.versions.parquet    the SHA-256 of what lay at an address under an ETag

The fingerprint stands for everything that can change what a decoder says: its code, the libraries, the limit of
pixels. Files are immutable and sealed, and have the same names in the shared store. So several machines need no lock:
each copies the files that it lacks and sends those that the other lacks. They are small, some hundred bytes a photo.
What is damaged is removed and counts as not known: the photo is decoded again.

Addresses are not kept, but a SHA-256 of each with its ETag.
"""

import hashlib
import re
import threading
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from regraft.config import Params
from regraft.errors import Damaged
from regraft.files import fingerprint, put_in_place, writing
from regraft.photos.images import Threads
from regraft.photos.known import IMAGE_SCHEMA, ContentFacts, Version
from regraft.provenance import provenance_of
from regraft.sealed import read_table, write_table
from regraft.store.joining import open_shared
from regraft.store.remote import Remote

_FILE = re.compile(r"[0-9a-f]{32}\.(contents|versions)\.parquet")
_CONNECTIONS = 8
_KEY = pa.binary(32)
_CONTENTS = pa.schema([("digest", _KEY), *IMAGE_SCHEMA, ("start", pa.binary()), ("bytes", pa.int64())])
_VERSIONS = pa.schema([("version", _KEY), ("digest", _KEY)])
assert [each.name for each in fields(ContentFacts)] == _CONTENTS.names[1:]


class Facts:
    """What is known; `regraft.photos.known.KnownFacts` says how it is used. Nothing is read before it is asked for."""

    def __init__(self, root: Path, shared: str | None, *, max_pixels: int) -> None:
        """Take the store's folder, the address of the shared store or None, and the limit of `DecodeLimits`."""
        decides = [provenance_of("regraft.photos.inspector").digest, max_pixels]
        self._root, self._shared = root, shared
        self._name = f"facts/{fingerprint(decides)[:16]}"
        self._folder = root / self._name
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
        return {row.pop("digest").hex(): ContentFacts(**row) for row in found}

    def digests_of(self, versions: Collection[Version]) -> dict[Version, str]:
        """Return the SHA-256 of what lay at addresses under an ETag."""
        if not versions:
            return {}
        self._load()
        assert self._versions
        keys = {_key(version): version for version in versions}
        return {keys[row["version"]]: row["digest"].hex() for row in self._versions.find(list(keys))}

    def add(self, contents: Mapping[str, ContentFacts], versions: Mapping[Version, str]) -> None:
        """Remember both, here and in the shared store."""
        number = uuid.uuid4().hex
        if contents:
            rows = [(bytes.fromhex(digest), *astuple(facts)) for digest, facts in contents.items()]
            self._write(f"{number}.contents.parquet", rows, _CONTENTS)
        if versions:
            pairs = [(_key(version), bytes.fromhex(digest)) for version, digest in versions.items()]
            self._write(f"{number}.versions.parquet", pairs, _VERSIONS)

    def _load(self) -> None:
        """Read all files, after copying those of the shared store that are not here."""
        with self._lock:
            if self._versions is None:
                self._read_all()

    def _read_all(self) -> None:
        self._exchange()
        tables: dict[str, list[pa.Table]] = {"contents": [], "versions": []}
        for name in self._names():
            kind = name.split(".")[1]
            if (table := _read(self._folder / name)) is not None:
                tables[kind].append(table)
        self._contents, self._versions = _Table(tables["contents"], _CONTENTS), _Table(tables["versions"], _VERSIONS)

    def _exchange(self) -> None:
        if not (remote := self._reached()):
            return
        here, there = set(self._names()), {name for name in remote.sizes(self._name) if _FILE.fullmatch(name)}
        with writing(self._folder):
            # list: to use up what Threads yields.
            list(Threads(_CONNECTIONS).map(lambda name: self._fetch(remote, name), sorted(there - here)))
            list(Threads(_CONNECTIONS).map(lambda name: self._send(remote, name), sorted(here - there)))

    def _fetch(self, remote: Remote, name: str) -> None:
        part = self._folder / f".{name}.{uuid.uuid4().hex}.part"
        try:
            remote.fetch(f"{self._name}/{name}", part)
            put_in_place(part, self._folder / name)
        except FileNotFoundError:  # collected a moment ago
            pass
        finally:
            part.unlink(missing_ok=True)

    def _send(self, remote: Remote, name: str) -> None:
        if _read(self._folder / name) is not None:  # a damaged one would be fetched by everybody, night after night
            remote.send(self._folder / name, f"{self._name}/{name}")

    def _write(self, name: str, rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> None:
        columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)]
        with writing(self._folder):
            write_table(self._folder / name, pa.table(columns, schema=schema))
        if remote := self._reached():
            self._send(remote, name)

    def _reached(self) -> Remote | None:
        with self._lock:
            if self._shared and not self._remote:
                self._remote = open_shared(self._root, self._shared, may_create=True)
            return self._remote

    def _names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if _FILE.fullmatch(path.name))


def open_facts(params: Params) -> Facts:
    """Return what is known, as params.yaml says where."""
    return Facts(params.paths.store, params.machine.shared_store, max_pixels=params.validate_data.max_pixels)


class _Table:
    """Rows by their first column, of which the first one counts where several machines found out the same."""

    def __init__(self, tables: list[pa.Table], schema: pa.Schema) -> None:
        self._table = pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()
        keys = _as_array(self._table.column(0).to_pylist())
        self._keys, self._rows = np.unique(keys, return_index=True)

    def find(self, keys: list[bytes]) -> list[dict[str, Any]]:
        """Return the rows of those keys that are there."""
        if not len(self._keys):
            return []
        wanted = _as_array(keys)
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        rows = self._rows[places[self._keys[places] == wanted]]
        return self._table.take(rows).to_pylist()


def _as_array(keys: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(keys), "S32")


def _read(path: Path) -> pa.Table | None:
    """Return the rows of a file; None if it is damaged, and then it goes, or if another process has removed it."""
    schema = _CONTENTS if path.name.endswith(".contents.parquet") else _VERSIONS
    try:
        table = read_table(path)
        if table.schema.remove_metadata().equals(schema) and not table.column(0).null_count:
            return table.replace_schema_metadata(None)
    except FileNotFoundError:
        return None
    except Damaged:
        pass
    path.unlink(missing_ok=True)
    return None


def _key(version: Version) -> bytes:
    return hashlib.sha256("\n".join(version).encode()).digest()
