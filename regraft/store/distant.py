"""Shards that lie only in the shared root: their keys are here, and their values are read by ranges.

The values of a shard lie in one piece, and its name says where. So two ranged reads give all the rest: keys, checksums
and times, a hundredth of it. They are kept in a small file, `<name>.keys`, which the seal in the name covers.
"""

import mmap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import xxhash

from regraft.core.errors import RegraftError
from regraft.photos.images import Threads
from regraft.store.names import KEYS, is_keys
from regraft.store.remote import Remote
from regraft.store.shards import Shard, layout_of, name_of, opened, seeds_of

_CONNECTIONS = 4  # to one shard
_RANGE_BYTES = 1_000_000  # at most in one answer
_GAP_BYTES = 16_000  # rows that are so near to each other come in one answer


class DistantShard(Shard):
    """A shard of the shared root."""

    is_here = False

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype, remote: Remote) -> None:
        """Look at a shard's keys; ValueError if they are damaged, or another namespace's."""
        super().__init__(path, shape, dtype)
        self.remote, self.address = remote, f"{path.parent.name}/{self.name}.arrow"

    def _contents(self, start: int, stop: int) -> mmap.mmap:
        with opened(self.path) as file:
            rest = file.read()
        if not 0 < start <= stop or start > len(rest):
            raise ValueError("damaged")
        try:
            # Where the values would be there is nothing: pages that nobody touches take no memory.
            contents = mmap.mmap(-1, stop + len(rest) - start, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OverflowError as error:
            raise ValueError("damaged") from error
        except OSError as error:
            raise RegraftError(
                f"there is no memory to look at {self.name} of the store: {error.strerror}. Give the process more."
            ) from error
        contents[:start] = rest[:start]
        contents[stop:] = rest[start:]
        return contents

    def read(self, rows: Sequence[int], buffers: Iterable[memoryview]) -> bool:
        """Fill one buffer per row; False as soon as a row is not what was written, also when it is fetched again.

        Raises:
            FileNotFoundError: the shard was merged into another, collected or set aside by another machine.
            RegraftError: the shared root cannot be reached.
        """
        targets = iter(buffers)  # one by one: they may all be the same
        answers = Threads(_CONNECTIONS).map(self._sound_rows, _ranges(rows, self.row_bytes))
        for values in answers:
            if values is None:
                return False
            for value in values:
                next(targets)[:] = value
        return True

    def _sound_rows(self, rows: list[int]) -> list[memoryview] | None:
        """Return the values of rows that lie near each other; None if one is not what was written."""
        first = self.start + rows[0] * self.row_bytes
        seeds, checksums = seeds_of(self.keys[rows]), self.checksums[rows].tolist()
        for _ in range(2):
            answer = memoryview(self._fetched(first, self.start + (rows[-1] + 1) * self.row_bytes))
            starts = [self.start + row * self.row_bytes - first for row in rows]
            values = [answer[start : start + self.row_bytes] for start in starts]
            if [xxhash.xxh3_64_intdigest(*both) for both in zip(values, seeds, strict=True)] == checksums:
                return values
        return None

    def _fetched(self, start: int, stop: int) -> bytes:
        contents = self.remote.read_range(self.address, start, stop)
        if contents is None:
            raise FileNotFoundError(f"{self.name} is not in the shared root")
        return contents


def fetch_keys(folder: Path, name: str, size: int, remote: Remote) -> bytes:
    """Return everything but the values of a shard of the shared root.

    Raises:
        FileNotFoundError: it is not there any more.
        ValueError: it is damaged.
    """
    start, stop, seal = layout_of(name)
    if not 0 < start <= stop <= size:
        raise ValueError("damaged")
    address = f"{folder.name}/{name}.arrow"
    for _ in range(2):
        parts = [remote.read_range(address, *ends) for ends in ((0, start), (stop, size))]
        if None in parts:
            raise FileNotFoundError(f"{name} is not in the shared root")
        rest = b"".join(part for part in parts if part)
        if len(rest) == start + size - stop and f"{xxhash.xxh3_64_intdigest(rest):016x}" == seal:
            return rest
    raise ValueError("damaged")


def keys_paths(folder: Path) -> list[Path]:
    """Return the files in a folder that hold keys, by name."""
    try:
        return sorted(path for path in folder.iterdir() if is_keys(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def size_said(path: Path) -> int:
    """Return the size that a shard must have of which this file holds the keys; FileNotFoundError if it is gone."""
    start, stop, _ = layout_of(name_of(path))
    return path.stat().st_size - start + stop


def keys_path(folder: Path, name: str) -> Path:
    """Return where the keys of a shard are kept."""
    return folder / f"{name}{KEYS}"


def _ranges(rows: Sequence[int], row_bytes: int) -> list[list[int]]:
    """Return rows, which grow, in groups that are worth one answer each."""
    groups: list[list[int]] = []
    for row in rows:
        near = groups and (row - groups[-1][-1] - 1) * row_bytes <= _GAP_BYTES
        if near and (row + 1 - groups[-1][0]) * row_bytes <= _RANGE_BYTES:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
