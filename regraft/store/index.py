"""The index over the shards of a namespace: in memory, and made anew whenever the shards are listed."""

from collections.abc import Sequence

import numpy as np

from regraft.store.columns import KEY_BYTES
from regraft.store.shards import Key, Shard, as_array


class Index:
    """Where each key's row is: sorted arrays, because a dictionary of 500,000 keys takes 100 MB."""

    def __init__(self, keys: np.ndarray, shards: np.ndarray, rows: np.ndarray) -> None:
        order = np.argsort(keys, kind="stable")  # of two rows with the same key the first counts
        if len(keys):
            ordered = keys[order]
            order = order[np.append(True, ordered[1:] != ordered[:-1])]
        self.keys, self.shards, self.rows = keys[order], shards[order], rows[order]

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> "Index":
        """Return the index of shards; a shard's number is its place among them."""
        lengths = [len(shard) for shard in shards]
        return cls(
            np.concatenate([np.empty(0, f"S{KEY_BYTES}"), *(shard.keys for shard in shards)]),
            np.repeat(np.arange(len(shards), dtype=np.int32), lengths),
            np.concatenate([np.empty(0, np.int32), *(np.arange(length, dtype=np.int32) for length in lengths)]),
        )

    def with_shard(self, number: int, shard: Shard) -> "Index":
        """Return the index with one more shard."""
        return Index(
            np.concatenate([self.keys, shard.keys]),
            np.concatenate([self.shards, np.full(len(shard), number, np.int32)]),
            np.concatenate([self.rows, np.arange(len(shard), dtype=np.int32)]),
        )

    def find(self, keys: Sequence[Key]) -> tuple[np.ndarray, np.ndarray]:
        """Return the shard of each key, or -1, and its row there."""
        wanted = as_array(keys)
        if not len(self.keys):
            return np.full(len(wanted), -1, np.int32), np.zeros(len(wanted), np.int32)
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[places] == wanted, self.shards[places], -1), self.rows[places]
