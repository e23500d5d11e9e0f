"""Rows for the tests of the store, and what many of them do."""

import hashlib
from pathlib import Path

import numpy as np

from regraft.store.namespace import Namespace
from regraft.store.shards import key_of

KEYS = [key_of(hashlib.sha256(bytes([number])).hexdigest()) for number in range(6)]
VALUES = np.arange(24, dtype=np.float32).reshape(6, 4)


def fill(store: Namespace, *rows: int) -> None:
    """Write some rows as one shard."""
    store.append([KEYS[row] for row in rows], VALUES[list(rows)], seconds=len(rows))
    store.flush()


def shards(store: Namespace) -> list[Path]:
    """The files of the shards that are here."""
    return sorted(store.folder.glob("*.arrow"))
