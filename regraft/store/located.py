"""Rows of a namespace that are found once and read many times, in any order, as training does."""

import os
import resource
import threading
from pathlib import Path

import numpy as np
import xxhash

from regraft.errors import RegraftError
from regraft.store.folders import facts_of
from regraft.store.namespace import Namespace
from regraft.store.remote import Remote
from regraft.store.shards import as_keys, seeds_of

_OPEN_FILES = 4096  # of shards, kept open at most, and half of what this process may have
_FETCHED_ROWS = 100_000  # of the shared root, between two looks at what is here
_READ_BYTES = 2**28  # in one call; the kernel reads at most 2 GB


class LocatedRows:
    """Rows of a namespace, by their positions among given keys; the store's lease must be held meanwhile.

    Where each row lies is found once. What is read for the first time is compared with its checksum.
    """

    def __init__(self, namespace: Namespace, keys: np.ndarray, checksums: np.ndarray, *, advice: str) -> None:
        """Find rows.

        Args:
            namespace: that they lie in.
            keys: from `as_array`.
            checksums: that the rows had when they were named, uint64, (n,).
            advice: what to do where some are not there, for the message.

        Raises:
            RegraftError: some are not there, or others are.
        """
        self._namespace, self._keys, self._checksums, self._advice = namespace, keys, checksums, advice
        self._is_verified = np.zeros(len(keys), bool)
        self._files: dict[int, int] = {}  # number of a shard -> descriptor
        self._most_files = _most_files()
        self._lock = threading.Lock()  # a file must not be closed while it is read
        self._find()

    def fetch(self) -> None:
        """Bring here what lies only in the shared root, so that it can be read again and again."""
        away = np.flatnonzero(np.isin(self._numbers, [n for n, path in enumerate(self._paths) if path is None]))
        for start in range(0, len(away), _FETCHED_ROWS):
            self._make_sure(away[start : start + _FETCHED_ROWS])

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return the rows at `positions`: the namespace's dtype, shape (len(positions), *shape).

        They are read and not mapped: pages of a mapping count as memory of the process.

        Raises:
            RegraftError: a row was damaged, or is not there any more.
        """
        values = np.empty((len(positions), *self._namespace.shape), self._namespace.dtype)
        with self._lock:
            again = np.flatnonzero(~self._copy(positions, values))
            if len(again):
                self._make_sure(positions[again])
                values[again] = self._namespace.read(as_keys(self._keys[positions[again]]))
        return values

    def close(self) -> None:
        """Close the files that are open."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()

    def _find(self) -> None:
        self.close()
        shards = self._namespace.shards
        numbers, rows = self._namespace.find(self._keys)
        starts = np.cumsum([0, *map(len, shards)])[:-1]
        checksums = np.concatenate([np.empty(0, np.uint64), *(shard.checksums for shard in shards)])
        is_same = numbers >= 0
        found = np.flatnonzero(is_same)
        is_same[found] = checksums[starts[numbers[found]] + rows[found]] == self._checksums[found]
        if not is_same.all():
            raise self._lost(int((~is_same).sum()))
        self._paths, self._numbers = [shard.path if shard.is_here else None for shard in shards], numbers
        begin = np.array([shard.start for shard in shards], np.int64)
        self._offsets = begin[numbers] + rows.astype(np.int64) * self._namespace.row_bytes

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
        shards = self._namespace.shards
        if absent := self._namespace.missing(as_keys(self._keys[positions])):
            raise self._lost(len(absent))
        if self._namespace.shards is not shards:
            self._find()

    def _lost(self, count: int) -> RegraftError:
        namespace = self._namespace
        return _lost(count, len(self._keys), namespace.folder, namespace.remote, self._advice)


def locate_rows(
    folder: Path, remote: Remote | None, keys: np.ndarray, checksums: np.ndarray, *, advice: str
) -> LocatedRows:
    """Open a namespace by its folder, and find rows in it.

    Args:
        folder: of the namespace, in the store's folder.
        remote: the shared root, or None.
        keys: see `LocatedRows`; so are the other arguments and the error.
    """
    facts = facts_of(folder.parent, remote, folder.name)
    if facts is None:
        raise _lost(len(keys), len(keys), folder, remote, advice)
    return LocatedRows(Namespace(folder, facts, remote), keys, checksums, advice=advice)


def _most_files() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _OPEN_FILES if limit == resource.RLIM_INFINITY else max(1, min(_OPEN_FILES, limit // 2))


def _lost(count: int, total: int, folder: Path, remote: Remote | None, advice: str) -> RegraftError:
    places = f"{folder}, and in the shared store {remote.shown}" if remote else str(folder)
    return RegraftError(f"{count:,} of {total:,} rows of the store are missing in {places}. {advice}")
