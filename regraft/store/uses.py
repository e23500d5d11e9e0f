"""Use records: which rows a version of build/features.arrow was made from. `gc` keeps what they name.

    <root>/uses/<MD5 of build/features.arrow>-<owner>-<checksum>.arrow
                            the keys, and in its metadata the namespaces' folders
    <root>/uses/<owner>.owner
                            when a machine last used the shared store: its time of writing

An owner is a store's folder on one machine. The history of a project says which of its own records are wanted. What
others recorded is theirs: it goes only once they have not used the shared store for many days.
"""

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from regraft.core.errors import RegraftError
from regraft.core.files import write_bytes, writing
from regraft.store.columns import KEY_BYTES
from regraft.store.joining import open_shared
from regraft.store.machine import owner_of
from regraft.store.names import UseName, is_namespace, is_owner, use_name
from regraft.store.namespace import Namespace
from regraft.store.remote import Remote
from regraft.store.shards import Key, as_array


@dataclass(frozen=True, slots=True)
class Use:
    """What one version of the features needs."""

    namespaces: list[str]  # names of their folders
    keys: np.ndarray  # as from `as_array`


def record_use(
    root: Path, name: str, namespaces: Iterable[Namespace], keys: Sequence[Key], *, shared: str | None
) -> None:
    """Record that rows are needed as long as a version of the features is.

    Who may not write to the store's folder can read it all the same, without a record: as without a lease. Records
    that the shared root does not have yet are sent, those of a time before there was one too.

    Args:
        root: the store's folder.
        name: MD5 of the features file, 32 hexadecimal digits, as dvc.lock names it.
        namespaces: where the rows are; a row need not be in each of them.
        keys: of the rows.
        shared: the shared root, or None.
    """
    if root.exists() and not os.access(root, os.W_OK):
        return
    contents = _contents([namespace.folder.name for namespace in namespaces], as_array(sorted(keys)))
    with writing(root / "uses", len(contents)):
        owner = owner_of(root)
        write_bytes(root / "uses" / f"{name}-{owner}-{xxhash.xxh3_64_hexdigest(contents)}.arrow", contents)
    if shared:
        remote = open_shared(root, shared, may_create=True)
        there = remote.sizes("uses")
        for record in _records_in(root):
            if record.owner == owner and record.name not in there and (sound := _sound(record, _here(root, record))):
                remote.write(f"uses/{record.name}", sound)


def records(root: Path, remote: Remote | None) -> list[UseName]:
    """Return all records, here and in the shared root."""
    there = [found for name in (remote.sizes("uses") if remote else ()) if (found := use_name(name))]
    return sorted({*_records_in(root), *there}, key=lambda record: record.name)


def owners(remote: Remote | None) -> set[str]:
    """Return the files in uses/ that say when a machine last used the shared store."""
    return {name for name in (remote.sizes("uses") if remote else ()) if is_owner(name)}


def read_use(root: Path, remote: Remote | None, record: UseName) -> Use:
    """Return what a record says.

    Raises:
        RegraftError: it is damaged. Going on without it would remove what it names.
    """
    for contents in (_here(root, record), remote.read(f"uses/{record.name}") if remote else None):
        if (sound := _sound(record, contents)) and (use := _parsed(sound)):
            return use
    raise RegraftError(
        f"{root / 'uses' / record.name} is damaged, and so nobody knows which rows it keeps. Delete it, here and in "
        "the shared store, and run the retraining again if its model is the present one."
    )


def forget_use(root: Path, remote: Remote | None, name: str) -> None:
    """Remove a record, or the file of an owner."""
    (root / "uses" / name).unlink(missing_ok=True)
    if remote:
        remote.remove(f"uses/{name}")


def _contents(namespaces: list[str], keys: np.ndarray) -> bytes:
    folders = json.dumps(namespaces)
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, pa.py_buffer(keys.tobytes())])
    metadata = {"namespaces": folders, "checksum": _checksum(folders, keys)}
    batch = pa.record_batch([column], names=["key"]).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _records_in(root: Path) -> list[UseName]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return [found for path in (root / "uses").iterdir() if (found := use_name(path.name))]
    return []


def _here(root: Path, record: UseName) -> bytes | None:
    path = root / "uses" / record.name
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _sound(record: UseName, contents: bytes | None) -> bytes | None:
    """Return contents if they are what was written; Arrow could crash on others."""
    is_sound = contents and record.seal in (None, xxhash.xxh3_64_hexdigest(contents))
    return contents if is_sound else None


def _parsed(contents: bytes) -> Use | None:
    try:
        table = pa.ipc.open_file(contents).read_all().combine_chunks()
        if table.schema.names != ["key"] or table.schema.field("key").type != pa.binary(KEY_BYTES):
            return None
        metadata = table.schema.metadata or {}
        text = metadata[b"namespaces"].decode()
        keys = as_array(table.column("key").to_pylist())
        folders = json.loads(text)
        is_sound = metadata[b"checksum"].decode() == _checksum(text, keys)
    except (pa.ArrowException, ValueError, TypeError, KeyError, OSError, RecursionError):
        return None
    is_list = isinstance(folders, list) and all(isinstance(name, str) and is_namespace(name) for name in folders)
    return Use(folders, keys) if is_sound and is_list else None


def _checksum(folders: str, keys: np.ndarray) -> str:
    hasher = xxhash.xxh3_64(folders.encode())
    hasher.update(keys.tobytes())
    return hasher.hexdigest()
