"""A namespace: all arrays of one kind, as one table of rows over many shards."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.errors import RegraftError
from regraft.store.description import describe, folder_of
from regraft.store.index import Index
from regraft.store.joining import open_shared
from regraft.store.remote import Remote
from regraft.store.shard_folder import ShardFolder
from regraft.store.shards import Key, Shard, as_array, buffers_of


class Namespace(ShardFolder):
    """All arrays of one kind: same shape, same dtype, same way of computing them. Open it with `open_namespace`."""

    def __init__(
        self, folder: Path, facts: dict[str, Any], remote: Remote | None = None, *, keeps_copies: bool = True
    ) -> None:
        super().__init__(folder, facts, remote, keeps_copies=keeps_copies)
        self.shards: list[Shard] = []
        self._index = Index()
        self._pending: dict[Key, tuple[np.ndarray, float]] = {}
        self.refresh()
        if self.shards:
            describe(self.folder, self.facts)

    def refresh(self) -> None:
        """Look at the folder, and the shared root, again: shards of other writers appear, removed ones disappear."""
        self.shards = self.look(self.shards)
        self._index = Index(self.shards)

    def missing(self, keys: Iterable[Key], *, verify: bool = True) -> list[Key]:
        """Return those of `keys` that have to be computed, in order, once each.

        Args:
            keys: from `key_of`.
            verify: read every row that is there, and count those that are damaged as missing; those of the shared root
                are kept here, so that they are fetched once. Without it no value is touched, and `read` finds the
                damage.
        """
        wanted = list(dict.fromkeys(keys))
        while verify and (self._keep(wanted) or self._copy(wanted, None)):
            pass
        shards, _ = self._index.find(wanted)
        return [key for key, shard in zip(wanted, shards.tolist(), strict=True) if shard < 0]

    def append(self, keys: Sequence[Key], values: np.ndarray, *, seconds: float) -> None:
        """Take rows; `flush` writes them.

        Args:
            keys: from `key_of`, one per row.
            values: this namespace's dtype, shape (len(keys), *shape).
            seconds: what computing them took; `seconds_for` gives it back as long as the rows are there.
        """
        if values.dtype != self.dtype or values.shape != (len(keys), *self.shape):
            raise ValueError(
                f"values must be {self.dtype} of shape {(len(keys), *self.shape)}. "
                f"Received: {values.dtype} of shape {values.shape}."
            )
        self._pending.update((key, (row, seconds / len(keys))) for key, row in zip(keys, values, strict=True))

    def flush(self) -> None:
        """Write what `append` still holds as one shard."""
        if not self._pending:
            return
        values, seconds = zip(*self._pending.values(), strict=True)
        shard = self.write(as_array(list(self._pending)), np.stack(values), np.array(seconds, np.float32))
        self._pending.clear()
        self.send(shard)

    def write(self, keys: np.ndarray, values: np.ndarray, seconds: np.ndarray) -> Shard:
        """Write rows as one new shard, in the folder only: keys from `as_array`, and the seconds that each row took."""
        shard = self.write_file(keys, values, seconds)
        self._add(shard)
        return shard

    def seconds_for(self, keys: Iterable[Key]) -> float:
        """Return what computing those of `keys` that are in the store has taken."""
        return sum(float(shard.seconds[rows].sum()) for shard, _, rows in self._places(list(keys)))

    def read(self, keys: Sequence[Key]) -> np.ndarray:
        """Return rows in the order of `keys`: this namespace's dtype, shape (len(keys), *shape).

        Raises:
            KeyError: a key is not in the store; ask `missing` first.
            RegraftError: a row was damaged since `missing` looked at it.
        """
        values = np.empty((len(keys), *self.shape), self.dtype)
        found, _ = self._index.find(keys)
        if (found < 0).any():
            raise KeyError(keys[int(np.argmax(found < 0))])
        lost = None
        while bad := self._copy(keys, values):
            lost = bad
        found, _ = self._index.find(keys)
        if lost and (found < 0).any():
            raise RegraftError(
                f"{lost[0].path} was damaged or removed while it was in use. Its rows are missing now: run the same "
                "command again."
            )
        return values

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for each key, as from `as_array`, the place of its shard in `shards`, or -1, and its row there."""
        return self._index.find(keys)

    def checksums(self, keys: Sequence[Key]) -> np.ndarray:
        """Return the checksums of rows, which no value is read for: uint64, in the order of `keys`.

        Raises:
            KeyError: a key is not in the store.
        """
        found, checksums = np.zeros(len(keys), bool), np.zeros(len(keys), np.uint64)
        for shard, chosen, rows in self._places(keys):
            found[chosen], checksums[chosen] = True, shard.checksums[rows]
        if not found.all():
            raise KeyError(keys[int(np.argmin(found))])
        return checksums

    def live_rows(self) -> list[np.ndarray]:
        """Return, for each of `shards`, the rows that count, in order: equal rows of other shards are left out."""
        return [self._index.rows_of(number) for number in range(len(self.shards))]

    def all_sound(self, parts: Iterable[tuple[Shard, np.ndarray]]) -> bool:
        """Whether rows of shards are what was written; if not, damaged shards are set aside, the rest listed anew."""
        lost = False
        for shard, rows in parts:
            try:
                if not len(rows) or shard.is_sound(rows.tolist()):
                    continue
                self._discard(shard.path)
            except FileNotFoundError:
                self._forget(shard)
            lost = True
        if lost:
            self.refresh()
        return not lost

    @property
    def stored_bytes(self) -> int:
        """Bytes of all shards, wherever they lie."""
        return sum(shard.size for shard in self.shards if not shard.is_copy)

    def __len__(self) -> int:
        return len(self._index)

    def _add(self, shard: Shard) -> None:
        self._index.add(len(self.shards), shard)
        self.shards.append(shard)

    def _keep(self, keys: Sequence[Key]) -> list[Shard]:
        """Fetch and keep those of `keys` that are only in the shared root; it returns the same as `_copy`."""
        lost: list[Shard] = []
        distant = [(shard, rows) for shard, _, rows in self._places(keys) if not shard.is_here]
        if self.keeps_copies and distant:
            kept = list(self.copies_of(distant, lost))
            # They come first from now on.
            self.shards = [*kept, *self.shards]
            self._index = Index(self.shards)
        if lost:
            self.refresh()
        return lost

    def _copy(self, keys: Sequence[Key], values: np.ndarray | None) -> list[Shard]:
        """Read and verify those of `keys` that are there, into `values` or to verify only.

        Returns:
            The shards that were damaged or have vanished. The namespace was refreshed then: try again.
        """
        buffers = [] if values is None else buffers_of(values)
        lost = []
        for shard, chosen, rows in self._places(keys):
            try:
                if values is None:
                    sound = shard.is_sound(rows.tolist())
                else:
                    sound = shard.read(rows.tolist(), [buffers[index] for index in chosen.tolist()])
            except FileNotFoundError:
                lost.append(shard)
                self._forget(shard)
                continue
            if not sound:
                lost.append(shard)
                self._discard(shard.path)
        if lost:
            self.refresh()
        return lost

    def _places(self, keys: Sequence[Key]) -> list[tuple[Shard, np.ndarray, np.ndarray]]:
        """Return the shards that have some of `keys`, each with the positions of these and their rows, which grow."""
        shards, rows = self._index.find(keys)
        order = np.lexsort((rows, shards))  # as they lie on the disk
        order = order[shards[order] >= 0]
        parts = np.split(order, np.flatnonzero(np.diff(shards[order])) + 1) if len(order) else []
        return [(self.shards[shards[part[0]]], part, rows[part]) for part in parts]


def open_namespace(
    root: Path, kind: str, facts: dict[str, Any], *, shape: tuple[int, ...], dtype: str, shared: str | None = None
) -> Namespace:
    """Open the namespace of everything that `facts` can change; its folder is made when there is something to write.

    Args:
        root: the store's folder.
        kind: a word for people, the first part of the folder's name.
        facts: JSON-able; whatever can change a value must be in it, and nothing that cannot.
        shape: of one value.
        dtype: of one value, a NumPy name.
        shared: the store that several machines share, as an fsspec URL; what a run needs of it comes to `root`.

    Raises:
        RegraftError: the shared store cannot be reached, or the folder not written to.
    """
    facts = {**facts, "kind": kind, "shape": list(shape), "dtype": dtype}
    return Namespace(folder_of(root, facts), facts, open_shared(root, shared, may_create=True) if shared else None)
