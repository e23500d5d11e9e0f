"""What features.arrow says of its rows, in as little memory as a million of them allow."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Protocol, overload

import numpy as np

DIGEST_BYTES = 32
_READ_BYTES = 2**28  # in one call; the kernel reads at most 2 GB


class Rows(Protocol):
    """Where features are read from: `FileRows`, or `regraft.store.located.LocatedRows`."""

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return the features at `positions`: float32, shape (len(positions), dim)."""
        ...

    def read_present(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return those of the features at `positions` that are there, and which these are: int, (their number,)."""
        ...


class OpenFile(FileIO):
    """Open as long as somebody holds the features: they are of one version, even if another takes the name."""

    def __del__(self) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class FileRows:
    """Features that lie in the file itself."""

    file: FileIO
    offsets: np.ndarray  # int64, (n,): where in the file each row begins
    dim: int  # of a feature

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return the features at `positions`: float32, shape (len(positions), dim).

        They are read and not mapped: pages of a mapping count as memory of the process, and would be all of the file
        after one epoch.
        """
        rows = np.empty((len(positions), self.dim), np.float32)
        offsets, size = self.offsets[positions], self.dim * rows.itemsize
        is_new = np.diff(offsets, prepend=-2 * size) != size  # not side by side with the row before
        is_new[:: max(1, _READ_BYTES // size)] = True
        starts = [*np.flatnonzero(is_new).tolist(), len(rows)]
        for start, end in itertools.pairwise(starts):
            if os.preadv(self.file.fileno(), [rows[start:end].data], int(offsets[start])) != (end - start) * size:
                raise OSError(f"{self.file.name} is shorter than when it was opened. Run again.")
        return rows

    def read_present(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the features at `positions`, which are all there, and which these are."""
        return self.read(positions), np.arange(len(positions))


class Digests(Sequence[str]):
    """SHA-256 digests as texts of 64 hexadecimal digits, 32 bytes each in memory."""

    def __init__(self, contents: np.ndarray) -> None:
        """Take uint8, shape (n, 32)."""
        self._contents = contents

    def __len__(self) -> int:
        return len(self._contents)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [row.tobytes().hex() for row in self._contents[index]]
        return self._contents[index].tobytes().hex()

    def __iter__(self) -> Iterator[str]:
        return (row.tobytes().hex() for row in self._contents)
