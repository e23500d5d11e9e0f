"""The index over the shards of a namespace: in memory, and made anew whenever the shards are listed.

Two machines may have computed the same row, and their bits may differ. Of rows with the same key the one with the
smallest checksum counts, so it is the same one whoever looks, in whatever order the shards are listed. Of equal rows
the one in the first shard counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regraft.store.columns import KEY_BYTES
from regraft.store.shards import Key, Shard, as_array


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows in the order of their keys, each key once."""

    keys: np.ndarray  # S34
    checksums: np.ndarray  # uint64
    shards: np.ndarray  # int32, numbers of shards
    rows: np.ndarray  # int32, within the shard

    @classmethod
    def of(cls, numbers: Sequence[int], shards: Sequence[Shard]) -> "_Run":
        """Return the rows of shards that have these numbers, which grow."""
        lengths = [len(shard) for shard in shards]
        return cls(
            np.concatenate([np.empty(0, f"S{KEY_BYTES}"), *(shard.keys for shard in shards)]),
            np.concatenate([np.empty(0, np.uint64), *(shard.checksums for shard in shards)]),
            np.repeat(np.array(numbers, np.int32), lengths),
            np.concatenate([np.empty(0, np.int32), *(np.arange(length, dtype=np.int32) for length in lengths)]),
        ).ordered()

    def __len__(self) -> int:
        return len(self.keys)

    def ordered(self) -> "_Run":
        """Return the same in order; the rows are in that of their shards."""
        return self.take(np.argsort(self.keys, kind="stable")).once()

    def merged(self, other: "_Run") -> "_Run":
        """Return both; neither is sorted again. `other` has the shards with the higher numbers."""
        places = np.searchsorted(self.keys, other.keys, side="right")
        columns = zip(self._columns, other._columns, strict=True)
        return _Run(*(np.insert(mine, places, theirs) for mine, theirs in columns)).once()

    def once(self) -> "_Run":
        """Return each key once: of equal ones, which lie side by side, the row that counts."""
        new = np.append(True, self.keys[1:] != self.keys[:-1])
        if not len(self) or new.all():
            return self
        group = np.cumsum(new)
        best = np.lexsort((self.shards, self.checksums, group))
        return self.take(best[np.append(True, group[best][1:] != group[best][:-1])])

    def take(self, places: np.ndarray) -> "_Run":
        """Return some rows."""
        return _Run(*(column[places] for column in self._columns))

    @property
    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.keys, self.checksums, self.shards, self.rows


def distinct_rows(shards: Sequence[Shard]) -> list[np.ndarray]:
    """Return, for each shard, its rows in order, without those that an earlier one has with the same checksum."""
    ends = np.cumsum([len(shard) for shard in shards])
    keys = np.concatenate([np.empty(0, f"S{KEY_BYTES}"), *(shard.keys for shard in shards)])
    checksums = np.concatenate([np.empty(0, np.uint64), *(shard.checksums for shard in shards)])
    _, first = np.unique(named(keys, checksums), return_index=True)
    first.sort()
    parts = np.split(first, np.searchsorted(first, ends))
    return [part - end + len(shard) for part, end, shard in zip(parts, ends, shards, strict=False)]


def named(keys: np.ndarray, checksums: np.ndarray) -> np.ndarray:
    """Return rows by key and checksum, as an array that NumPy can sort and search: S42, (n,)."""
    both = np.empty(len(keys), [("key", f"S{KEY_BYTES}"), ("checksum", ">u8")])
    both["key"], both["checksum"] = keys, checksums
    return both.view(f"S{both.itemsize}")


class Index:
    """Where each key's row is: sorted arrays, because a dictionary of 500,000 keys takes 100 MB.

    They are several runs, of which none is longer than half of the one before. Two are merged where that is no longer
    so: a row is moved as often as a list of that length can be halved, and not at every shard that is written.
    """

    def __init__(self, shards: Sequence[Shard] = ()) -> None:
        """Take shards; a shard's number is its place among them."""
        self._runs = [_Run.of(range(len(shards)), shards)]

    def add(self, number: int, shard: Shard) -> None:
        """Take one more shard, whose number is the highest so far."""
        self._runs.append(_Run.of([number], [shard]))
        while len(self._runs) > 1 and 2 * len(self._runs[-1]) > len(self._runs[-2]):
            self._merge_last()

    def find(self, keys: Sequence[Key] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the shard of each key, or -1, and its row there."""
        wanted = keys if isinstance(keys, np.ndarray) else as_array(keys)
        shards, rows = np.full(len(wanted), -1, np.int32), np.zeros(len(wanted), np.int32)
        best = np.zeros(len(wanted), np.uint64)
        for run in filter(len, self._runs):  # their shards have ever higher numbers
            places = np.minimum(np.searchsorted(run.keys, wanted), len(run) - 1)
            checksums = run.checksums[places]
            is_better = (run.keys[places] == wanted) & ((shards < 0) | (checksums < best))
            for column, values in ((shards, run.shards[places]), (rows, run.rows[places]), (best, checksums)):
                column[is_better] = values[is_better]
        return shards, rows

    def rows_of(self, number: int) -> np.ndarray:
        """Return the rows of a shard that count, in order."""
        run = self._whole()
        return np.sort(run.rows[run.shards == number])

    def __len__(self) -> int:
        return len(self._whole())

    def _whole(self) -> _Run:
        while len(self._runs) > 1:
            self._merge_last()
        return self._runs[0]

    def _merge_last(self) -> None:
        *others, first, second = self._runs
        self._runs = [*others, first.merged(second)]
