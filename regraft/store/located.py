"""Rows of a namespace that are found once and read many times, in any order, as training does."""

import os
import resource
import threading
from pathlib import Path

import numpy as np
import xxhash

from regraft.core.errors import RegraftError
from regraft.store.folders import facts_of
from regraft.store.index import named
from regraft.store.namespace import Namespace
from regraft.store.remote import Remote
from regraft.store.shards import Shard, as_keys, seeds_of

_OPEN_FILES = 4096  # of shards, kept open at most, and half of what this process may have
_FETCHED_ROWS = 100_000  # of the shared root, between two looks at what is here
_READ_BYTES = 2**28  # in one call; the kernel reads at most 2 GB


class LocatedRows:
    """Rows of a namespace, by their positions among given keys; the store's lease must be held meanwhile.

    Where each row lies is found once. What is read for the first time is compared with its checksum. A row with the
    checksum counts wherever it lies, also where another machine computed the row with other bits.
    """

    def __init__(
        self, namespace: Namespace, keys: np.ndarray, checksums: np.ndarray, *, advice: str, only_some: bool = False
    ) -> None:
        """Find rows.

        Args:
            namespace: that they lie in.
            keys: from `as_array`.
            checksums: that the rows had when they were named, uint64, (n,).
            advice: what to do where some are not there, for the message.
            only_some: whether a few are read; then only those have to be there.

        Raises:
            RegraftError: some are not there, or others are.
        """
        self._namespace, self._keys, self._checksums, self._advice = namespace, keys, checksums, advice
        self._files: dict[int, int] = {}  # number of a shard -> descriptor
        self._most_files = _most_files()
        self._lock = threading.Lock()  # a file must not be closed while it is read
        self._find()
        if not only_some:
            self._expect(np.arange(len(keys)))

    def fetch(self) -> None:
        """Bring here what lies only in the shared root, so that it can be read again and again."""
        away = np.flatnonzero(np.isin(self._numbers, [n for n, path in enumerate(self._paths) if path is None]))
        for start in range(0, len(away), _FETCHED_ROWS):
            self._make_sure(away[start : start + _FETCHED_ROWS])

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return the rows at `positions`: the namespace's dtype, shape (len(positions), *shape).

        They are read and not mapped: pages of a mapping count as memory of the process.

        Raises:
            RegraftError: a row was damaged, or is not there.
        """
        values = np.empty((len(positions), *self._namespace.shape), self._namespace.dtype)
        with self._lock:
            self._expect(positions)
            again = np.flatnonzero(~self._copy(positions, values))
            if len(again):
                self._make_sure(positions[again])
                values[again], is_read = self._read_again(positions[again])
                if not is_read.all():
                    raise self._lost(0, int((~is_read).sum()))
        return values

    def read_present(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return those of the rows at `positions` that are there and sound, as `read` does, and which these are."""
        with self._lock:
            self._bring(positions)
            found = np.flatnonzero(self._numbers[positions] >= 0)
            values, is_read = self._read_again(positions[found])
        return values[is_read], found[is_read]

    def close(self) -> None:
        """Close the files that are open."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()

    def _find(self) -> None:
        self.close()
        self._shards = shards = self._namespace.shards
        numbers, rows = self._namespace.find(self._keys)
        starts = np.cumsum([0, *map(len, shards)])[:-1]
        checksums = np.concatenate([np.empty(0, np.uint64), *(shard.checksums for shard in shards)])
        found = np.flatnonzero(numbers >= 0)
        others = found[checksums[starts[numbers[found]] + rows[found]] != self._checksums[found]]
        self._is_other = np.zeros(len(numbers), bool)  # than the row that counts in the namespace
        self._is_other[others] = True
        numbers[others] = -1
        for number, shard in reversed([*enumerate(shards)] if len(others) else []):  # the first one comes last
            chosen, places = _rows_with(shard, self._keys[others], self._checksums[others])
            numbers[others[chosen]], rows[others[chosen]] = number, places
        self._paths, self._numbers = [shard.path if shard.is_here else None for shard in shards], numbers
        begin = np.array([*(shard.start for shard in shards), 0], np.int64)
        self._offsets = begin[numbers] + rows.astype(np.int64) * self._namespace.row_bytes
        self._is_verified = np.zeros(len(numbers), bool)  # what was compared may be read from elsewhere now

    def _copy(self, positions: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Read rows that lie here, and return which were read and are sound; rows side by side are read at once."""
        contents, size = values.reshape(-1).view(np.uint8).data, self._namespace.row_bytes
        numbers, offsets = self._numbers[positions], self._offsets[positions]
        is_new = np.diff(offsets, prepend=-size) != size
        is_new[1:] |= numbers[1:] != numbers[:-1]
        is_new[:: max(1, _READ_BYTES // size)] = True
        starts, is_read = np.flatnonzero(is_new), np.ones(len(positions), bool)
        parts = zip(starts.tolist(), numbers[starts].tolist(), offsets[starts].tolist(), strict=True)
        for (start, number, offset), end in zip(parts, [*starts[1:].tolist(), len(positions)], strict=False):
            file, part = self._files.get(number), contents[start * size : end * size]
            try:
                if os.preadv(self._open(number) if file is None else file, [part], offset) != len(part):
                    is_read[start:end] = False
            except OSError:  # it lies only in the shared root, has vanished, or cannot be read any more
                is_read[start:end] = False
        self._verify(positions, contents, is_read)
        return is_read

    def _verify(self, positions: np.ndarray, contents: memoryview, is_read: np.ndarray) -> None:
        """Compare rows with their checksums, the first time that they are read; others were not read, then."""
        new, size = np.flatnonzero(is_read & ~self._is_verified[positions]), self._namespace.row_bytes
        if not len(new):
            return
        seeds = seeds_of(self._keys[positions[new]])
        for row, seed, checksum in zip(new.tolist(), seeds, self._checksums[positions[new]].tolist(), strict=True):
            is_read[row] = xxhash.xxh3_64_intdigest(contents[row * size : (row + 1) * size], seed) == checksum
        self._is_verified[positions[new[is_read[new]]]] = True

    def _open(self, number: int) -> int:
        path = self._paths[number]
        if path is None:
            raise FileNotFoundError("not on this machine")
        if len(self._files) >= self._most_files:
            os.close(self._files.pop(next(iter(self._files))))
        file = self._files[number] = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return file

    def _make_sure(self, positions: np.ndarray) -> None:
        """Let the namespace read rows and set aside what is damaged; RegraftError if they are not all there then."""
        self._bring(positions)
        self._expect(positions)

    def _bring(self, positions: np.ndarray) -> None:
        """Let the namespace read rows, fetch those that lie elsewhere and set aside what is damaged."""
        usual, others = positions[~self._is_other[positions]], positions[self._is_other[positions]]
        self._namespace.missing(as_keys(self._keys[usual]))
        if len(others):
            self._namespace.refresh()
        if self._namespace.shards is not self._shards:
            self._find()
        if len(others):
            self._keep(others)

    def _keep(self, others: np.ndarray) -> None:
        """Bring here what lies only in the shared root, and is not what `Namespace.missing` brings."""
        numbers, size = self._numbers[others], self._namespace.row_bytes
        distant = [
            (shard, np.unique((self._offsets[others[numbers == number]] - shard.start) // size))
            for number, shard in enumerate(self._shards)
            if not shard.is_here and (numbers == number).any()
        ]
        if distant:
            list(self._namespace.copies_of(distant, []))
            self._namespace.refresh()
            self._find()

    def _read_again(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows that `_bring` has found, and which could be read: of those that do not count, not all may."""
        values = np.empty((len(positions), *self._namespace.shape), self._namespace.dtype)
        is_read = self._copy(positions, values)
        left = ~is_read & ~self._is_other[positions]
        if left.any():
            values[left] = self._namespace.read(as_keys(self._keys[positions[left]]))
        return values, is_read | left

    def _expect(self, positions: np.ndarray) -> None:
        """RegraftError if rows are not there."""
        is_absent = self._numbers[positions] < 0
        if is_absent.any():
            others = int((is_absent & self._is_other[positions]).sum())
            raise self._lost(int(is_absent.sum()) - others, others)

    def _lost(self, missing: int, others: int) -> RegraftError:
        namespace = self._namespace
        return _lost((missing, others), len(self._keys), namespace.folder, namespace.remote, self._advice)


def locate_rows(
    folder: Path,
    remote: Remote | None,
    keys: np.ndarray,
    checksums: np.ndarray,
    *,
    advice: str,
    only_some: bool = False,
) -> LocatedRows:
    """Open a namespace by its folder, and find rows in it.

    Args:
        folder: of the namespace, in the store's folder.
        remote: the shared root, or None.
        keys: see `LocatedRows`; so are the other arguments and the error.
    """
    facts = facts_of(folder.parent, remote, folder.name)
    if facts is None:
        raise _lost((len(keys), 0), len(keys), folder, remote, advice)
    return LocatedRows(Namespace(folder, facts, remote), keys, checksums, advice=advice, only_some=only_some)


def _most_files() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _OPEN_FILES if limit == resource.RLIM_INFINITY else max(1, min(_OPEN_FILES, limit // 2))


def _rows_with(shard: Shard, keys: np.ndarray, checksums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows that are named by key and checksum a shard has, and where in it."""
    if not len(shard):
        return np.zeros(0, int), np.zeros(0, int)
    there, wanted = named(shard.keys, shard.checksums), named(keys, checksums)
    order = np.argsort(there)
    places = order[np.minimum(np.searchsorted(there, wanted, sorter=order), len(shard) - 1)]
    chosen = np.flatnonzero(there[places] == wanted)
    return chosen, places[chosen]


def _lost(counts: tuple[int, int], total: int, folder: Path, remote: Remote | None, advice: str) -> RegraftError:
    """What to raise where so many rows are missing, and so many are others than those that were named."""
    places = f"{folder}, and in the shared store {remote.shown}" if remote else str(folder)
    what = [
        f"{count:,} of {total:,} rows of the store {which}"
        for count, which in zip(counts, ("are missing", "are others now"), strict=True)
        if count
    ]
    return RegraftError(f"{', and '.join(what)} in {places}. {advice}")
