"""A namespace: all arrays of one kind, as one table of rows over many shards."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regraft.errors import RegraftError
from regraft.files import writing
from regraft.store.description import describe, folder_of
from regraft.store.index import Index
from regraft.store.joining import open_shared
from regraft.store.names import SENT
from regraft.store.remote import Remote
from regraft.store.shards import Key, Shard, as_array, buffers_of, name_of, set_aside, shard_paths, write_shard
from regraft.store.synchronising import send, synchronise

_LISTINGS = 5  # of a folder whose files vanish while it is listed


class Namespace:
    """All arrays of one kind: same shape, same dtype, same way of computing them. Open it with `open_namespace`."""

    def __init__(self, folder: Path, facts: dict[str, Any], remote: Remote | None = None) -> None:
        self.folder, self.facts, self.remote = folder, facts, remote
        self.shape, self.dtype = tuple(facts["shape"]), np.dtype(facts["dtype"])
        self.shards: list[Shard] = []
        self._index = Index.of([])
        self._unusable: set[str] = set()  # names of shards that are damaged, whether or not they could be renamed
        self._fetched_again: set[str] = set()
        self._pending: dict[Key, tuple[np.ndarray, float]] = {}
        self.refresh()
        if self.shards:
            describe(self.folder, self.facts)

    @property
    def row_bytes(self) -> int:
        """What one row takes on the disk, nearly."""
        return math.prod(self.shape) * self.dtype.itemsize

    def refresh(self) -> None:
        """Look at the folder, and the shared root, again: shards of other writers appear, removed ones disappear."""
        known = {shard.name: shard for shard in self.shards}
        for _ in range(_LISTINGS):
            vanished = self._synchronise()
            shards, again = self._list(known)
            known = {shard.name: shard for shard in shards}
            if not vanished and not again:
                break
        # The largest first: of equal rows that one counts which need not be rewritten.
        self.shards = sorted(shards, key=len, reverse=True)
        self._index = Index.of(self.shards)

    def missing(self, keys: Iterable[Key], *, verify: bool = True) -> list[Key]:
        """Return those of `keys` that have to be computed, in order, once each.

        Args:
            keys: from `key_of`.
            verify: read every row that is there, and count those that are damaged as missing. Without it no value is
                touched, and `read` finds the damage.
        """
        wanted = list(dict.fromkeys(keys))
        while verify and self._copy(wanted, None):
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
        describe(self.folder, self.facts)
        with writing(self.folder):
            shard = Shard(write_shard(self.folder, keys, values, seconds), self.shape, self.dtype)
        self._index = self._index.with_shard(len(self.shards), shard)
        self.shards.append(shard)
        return shard

    def send(self, shard: Shard) -> None:
        """Send a new shard to the shared root, if there is one."""
        if self.remote:
            shard.path = send(shard.path, self.remote)

    def remove(self, shard: Shard) -> None:
        """Remove a shard for everybody; `refresh` notices."""
        if self.remote:
            self.remote.remove(f"{self.folder.name}/{shard.name}.arrow")
        for path in (shard.path, shard.path.with_name(f"{shard.name}{SENT}")):
            path.unlink(missing_ok=True)

    def seconds_for(self, keys: Iterable[Key]) -> float:
        """Return what computing those of `keys` that are in the store has taken."""
        shards, rows = self._index.find(list(keys))
        return sum(float(shard.seconds[rows[shards == number]].sum()) for number, shard in enumerate(self.shards))

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
                f"{lost[0]} was damaged or removed while it was in use. Its rows are missing now: run the same command "
                "again."
            )
        return values

    def verify(self, shard: Shard) -> None:
        """Read all of a shard; if anything in it is damaged, `refresh` goes on without it."""
        try:
            self._check(shard.path)
        except FileNotFoundError:
            return
        except ValueError:
            self._discard(shard.path)

    def live_rows(self) -> list[np.ndarray]:
        """Return, for each of `shards`, the rows that count, in order: equal rows of other shards are left out."""
        return [np.sort(self._index.rows[self._index.shards == number]) for number in range(len(self.shards))]

    @property
    def stored_bytes(self) -> int:
        """Bytes on the disk."""
        return sum(shard.size for shard in self.shards)

    def __len__(self) -> int:
        return len(self._index.keys)

    def _list(self, known: dict[str, Shard]) -> tuple[list[Shard], bool]:
        """Return the folder's shards, and whether to list again; those that are `known` are not read again."""
        shards, again = {}, False
        for path in shard_paths(self.folder):
            name = name_of(path)
            if name in self._unusable:
                continue
            try:
                shards[name] = known.get(name) or Shard(path, self.shape, self.dtype)
                shards[name].path = path
            except FileNotFoundError:
                again = True  # it was merged into a shard that may have appeared after the folder was listed
            except ValueError:
                self._discard(path)
                again |= name not in self._unusable  # it is fetched again
        return list(shards.values()), again

    def _copy(self, keys: Sequence[Key], values: np.ndarray | None) -> list[Path]:
        """Read and verify those of `keys` that are there, into `values` or to verify only.

        Returns:
            The shards that were damaged or have vanished. The namespace was refreshed then: try again.
        """
        shards, rows = self._index.find(keys)
        buffers = [] if values is None else buffers_of(values)
        lost = []
        for number in np.unique(shards[shards >= 0]).tolist():
            shard, chosen = self.shards[number], np.flatnonzero(shards == number)
            chosen = chosen[np.argsort(rows[chosen])]  # as they lie on the disk
            try:
                if values is None:
                    sound = shard.is_sound(rows[chosen].tolist())
                else:
                    sound = shard.read(rows[chosen].tolist(), [buffers[index] for index in chosen.tolist()])
            except FileNotFoundError:
                lost.append(shard.path)
                continue
            if not sound:
                lost.append(shard.path)
                self._discard(shard.path)
        if lost:
            self.refresh()
        return lost

    def _discard(self, path: Path) -> None:
        """Set a damaged shard aside; but a copy of a shared one is thrown away, once, and so fetched again."""
        name = name_of(path)
        if self.remote and path.name.endswith(SENT) and name not in self._fetched_again:
            self._fetched_again.add(name)
            path.unlink(missing_ok=True)
        else:
            self._unusable.add(name)
            set_aside(path)

    def _synchronise(self) -> bool:
        if not self.remote:
            return False
        describe(self.folder, self.facts)
        with writing(self.folder):
            return synchronise(self.folder, self.remote, self._check, self._unusable)

    def _check(self, path: Path) -> None:
        """Read all of a shard; ValueError if anything in it is damaged."""
        if not Shard(path, self.shape, self.dtype).is_sound():
            raise ValueError("damaged")


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
        shared: the store that several machines share, as an fsspec URL; `root` is this machine's copy of it then.

    Raises:
        RegraftError: the shared store cannot be reached, or the folder not written to.
    """
    facts = {**facts, "kind": kind, "shape": list(shape), "dtype": dtype}
    return Namespace(folder_of(root, facts), facts, open_shared(root, shared, may_create=True) if shared else None)
