"""Use records: which rows a version of build/features.arrow was made from. `gc` keeps what they name.

`<root>/uses/<MD5 of build/features.arrow>.arrow` holds the keys, and in its metadata the namespaces' folders.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from regraft.errors import RegraftError
from regraft.files import write_bytes, writing
from regraft.store.namespace import Namespace
from regraft.store.remote import Remote
from regraft.store.shards import KEY_BYTES, Key, as_array

_YOUNG_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Use:
    """What one version of the features needs."""

    namespaces: list[str]  # names of their folders
    keys: np.ndarray  # as from `as_array`


def record_use(
    root: Path, name: str, namespaces: Iterable[Namespace], keys: Sequence[Key], *, shared: str | None
) -> None:
    """Record that rows are needed as long as a version of the features is.

    Who may not write to the store's folder can read it all the same, without a record: as without a lease.

    Args:
        root: the store's folder.
        name: MD5 of the features file, 32 hexadecimal digits, as dvc.lock names it.
        namespaces: where the rows are; a row need not be in each of them.
        keys: of the rows.
        shared: the shared root, or None.
    """
    folders = json.dumps([namespace.folder.name for namespace in namespaces])
    array = as_array(sorted(keys))
    metadata = {"namespaces": folders, "checksum": _checksum(folders, array)}
    column = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(KEY_BYTES), len(array), [None, pa.py_buffer(array.tobytes())]
    )
    batch = pa.record_batch([column], names=["key"]).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    contents = sink.getvalue().to_pybytes()
    if os.access(root, os.W_OK):
        with writing(root / "uses", len(contents)):
            write_bytes(root / "uses" / f"{name}.arrow", contents)
    if shared:
        Remote(shared).write(f"uses/{name}.arrow", contents)


def recorded(root: Path, remote: Remote | None) -> set[str]:
    """Return the names of all records, here and in the shared root."""
    names = {path.name for path in (root / "uses").glob("[!.]*.arrow")} | set(remote.sizes("uses") if remote else ())
    return {name.removesuffix(".arrow") for name in names if name.endswith(".arrow") and not name.startswith(".")}


def is_young(root: Path, name: str) -> bool:
    """Whether a record was written here in the last hour."""
    try:
        return time.time() - (root / "uses" / f"{name}.arrow").stat().st_mtime < _YOUNG_SECONDS
    except FileNotFoundError:
        return False


def read_use(root: Path, remote: Remote | None, name: str) -> Use:
    """Return a record.

    Raises:
        RegraftError: it is damaged. Going on without it would remove what it names.
    """
    path = root / "uses" / f"{name}.arrow"
    contents = path.read_bytes() if path.exists() else remote.read(f"uses/{name}.arrow") if remote else None
    try:
        table = pa.ipc.open_file(contents or b"").read_all().combine_chunks()
        metadata = table.schema.metadata or {}
        folders = metadata[b"namespaces"].decode()
        keys = as_array(table.column("key").to_pylist())
        if metadata[b"checksum"].decode() != _checksum(folders, keys):
            raise ValueError("damaged")
    except (pa.ArrowException, ValueError, KeyError, OSError):
        raise RegraftError(
            f"{path} is damaged, and so nobody knows which rows it keeps. Delete it, and run the retraining again if "
            "its model is the present one."
        ) from None
    return Use(json.loads(folders), keys)


def forget_use(root: Path, remote: Remote | None, name: str) -> None:
    """Remove a record."""
    (root / "uses" / f"{name}.arrow").unlink(missing_ok=True)
    if remote:
        remote.remove(f"uses/{name}.arrow")


def _checksum(folders: str, keys: np.ndarray) -> str:
    hasher = xxhash.xxh3_64(folders.encode())
    hasher.update(keys.tobytes())
    return hasher.hexdigest()
